"""Who runs this process, as the operating system says: never as its environment does."""

from __future__ import annotations

import contextlib
import os

_UNNAMED = "uid-"
_ALL_USERS = ["0", "0", "4294967295"]
"""The user map of the first user namespace: every user is itself."""


def current_user() -> str:
    """Login name of this process's user; ``uid-<number>`` where the number has none.

    In a user namespace of one's own anybody is root, and ``/etc/passwd`` may be
    anybody's: there it is the number that the user has outside.
    """
    uid = os.getuid()
    if is_first_user_namespace():
        return login_of(uid)
    return f"{_UNNAMED}{_outside(uid)}"


def login_of(uid: int) -> str:
    """Login name of a user; ``uid-<number>`` where the number has none."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"{_UNNAMED}{uid}"


def uid_of_login(user: str) -> int | None:
    """The number of a user by what `login_of` gives for it; None where there is none."""
    if is_unnamed(user):
        return int(user.removeprefix(_UNNAMED))
    try:
        import pwd

        return pwd.getpwnam(user).pw_uid
    except (ImportError, KeyError):
        return None


def is_unnamed(user: str) -> bool:
    """Whether a name is one that `login_of` gives to a user without any."""
    number = user.removeprefix(_UNNAMED)
    return number != user and number.isdecimal()


def is_root() -> bool:
    """Whether this process may do everything on this machine: it is root, and not only
    in a user namespace that anybody may make.
    """
    return os.geteuid() == 0 and os.getuid() == 0 and is_first_user_namespace()


def is_first_user_namespace() -> bool:
    """Whether users are numbered here as the machine numbers them."""
    lines = _user_map()
    return lines is None or lines == [_ALL_USERS]


def _user_map() -> list[list[str]] | None:
    """``/proc/self/uid_map``: first user here, first user outside, how many; None where
    there are no user namespaces.
    """
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return [line.split() for line in file]
    except OSError:
        return None


def _outside(uid: int) -> int:
    """The number that a user of this user namespace has in the one around it."""
    for first, outside, count in _user_map() or []:
        if 0 <= uid - int(first) < int(count):
            return int(outside) + uid - int(first)
    return uid


def groups_of(user: str) -> frozenset[str]:
    """Names of the Unix groups a login is in; none where the system does not know
    it.
    """
    try:
        import grp
        import pwd

        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except (ImportError, KeyError, OSError):
        return frozenset()
    names = set()
    for number in numbers:
        with contextlib.suppress(KeyError):  # a group without a name
            names.add(grp.getgrgid(number).gr_name)
    return frozenset(names)
