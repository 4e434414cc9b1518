"""Processes of other Unix users, as root can start them: real users, and an interpreter
that they can run wherever it lies.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jupyter_aistack

READ_ALL = "dac_read_search"
"""The capability to read what lies in closed folders, and to do nothing else there."""
READ_ALL_BIT = 2
NO_SUCH_USER = 6
"""What ``userdel`` exits with for a user that is gone already."""


def is_readable_by_all(path: Path) -> bool:
    """Whether every user may go to `path`, and read what it leads to."""
    target = path.resolve()
    folders = [folder.stat().st_mode & stat.S_IXOTH for folder in target.parents]
    return all(folders) and bool(target.stat().st_mode & stat.S_IROTH)


def needs_capability() -> bool:
    """Whether other users cannot run this interpreter with this package as they are."""
    parts = (Path(sys.executable), Path(sys.prefix), Path(jupyter_aistack.__file__))
    return not all(map(is_readable_by_all, parts))


def why_not() -> str:
    """Why no process of another user can be started here; empty where it can."""
    if os.getuid() != 0:
        return "only root can start processes of other users"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed"
    if needs_capability() and not _may_read_all():
        return "other users may not read this interpreter, and root cannot let them"
    return ""


def as_user(uid: int, command: Sequence[str]) -> list[str]:
    """`command` as it is run by the user of that number, in the group of that number
    and in no other.
    """
    numbers = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *numbers, *_reading(), *command]


def starting_users(command: Sequence[str]) -> list[str]:
    """`command` as root runs it, so that the processes which it starts as other users
    can read this interpreter.
    """
    if not needs_capability():
        return list(command)
    return ["setpriv", "--securebits=+no_setuid_fixup", *_reading(), *command]


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets that all users may go to: those of
    pytest are closed to them.
    """
    with tempfile.TemporaryDirectory(prefix="aistack-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def unix_users(home: Path, *names: str) -> Iterator[dict[str, pwd.struct_passwd]]:
    """Users with a login and a home of their own, by name; gone afterwards.

    Raises:
        CalledProcessError: one of them cannot be made.
    """
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    try:
        for name in names:
            _add(name, home / name)
        yield {name: pwd.getpwnam(name) for name in names}
    finally:
        for name in names:
            _remove(name)


def _add(name: str, home: Path) -> None:
    _remove(name)  # of a run that was killed
    options = ["--create-home", "--home-dir", str(home), "--shell", "/bin/sh"]
    subprocess.run(["useradd", *options, name], check=True, capture_output=True)
    home.chmod(0o700)


def _remove(name: str) -> None:
    removed = subprocess.run(["userdel", "--force", name], capture_output=True)
    assert removed.returncode in (0, NO_SUCH_USER), removed.stderr


def _reading() -> list[str]:
    if not needs_capability():
        return []
    return [f"--inh-caps=+{READ_ALL}", f"--ambient-caps=+{READ_ALL}"]


def _may_read_all() -> bool:
    status = Path("/proc/self/status").read_text()
    (effective,) = [line for line in status.splitlines() if line.startswith("CapEff:")]
    return bool(int(effective.split()[1], 16) >> READ_ALL_BIT & 1)
