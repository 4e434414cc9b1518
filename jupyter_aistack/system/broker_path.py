"""Where the broker of this host listens, and whether that is the host's indeed."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied

from .permissions import is_guarded
from .users import login_of

DEFAULT_PATH = "/run/aistack/broker.sock"
"""Where the service of this host listens."""
OFF = "off"
"""The setting of those who want no host broker."""
AUTO = "auto"
"""The setting of those who take the one at `DEFAULT_PATH`, if there is one."""
VARIABLE = "AISTACK_BROKER"
MAX_PATH_BYTES = 107
"""The longest path of a Unix socket (``sun_path`` of Linux)."""


def broker_path(configured: str = AUTO) -> str:
    """The socket of the broker to be used; empty for none.

    Args:
        configured: what the settings say: a path, ``auto`` or ``off``. The environment
            variable AISTACK_BROKER goes first.

    Raises:
        PermissionDenied: another user could have put that socket there.
        InvalidRequest: it is no path of a socket.
    """
    if is_off(configured):
        return ""
    chosen = os.environ.get(VARIABLE, "") or configured or AUTO
    if chosen != AUTO:
        _check_length(chosen)
        return chosen
    if not os.path.lexists(DEFAULT_PATH):
        return ""
    check_owner(DEFAULT_PATH)
    return DEFAULT_PATH


def is_off(configured: str) -> bool:
    """Whether no host broker is wanted, by the environment or else the settings."""
    return (os.environ.get(VARIABLE, "") or configured) == OFF


def _check_length(path: str) -> None:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidRequest(
            f"{VARIABLE}: the path of a socket may have {MAX_PATH_BYTES} bytes, "
            f"and {path[:80]}... has {len(os.fsencode(path))}",
            field=VARIABLE,
        )


def check_owner(path: str) -> int:
    """The user whose socket it is: root, this user, or whom its folder belongs to.

    Raises:
        FileNotFoundError: there is none.
        PermissionDenied: it is another user's, or no socket.
    """
    status = os.lstat(path)
    if not stat.S_ISSOCK(status.st_mode):
        raise PermissionDenied(
            f"{path} is no socket; whoever put it there may not answer for the host's "
            "broker",
        )
    trusted = {0, os.getuid()}
    folder = Path(path).absolute().parent
    with contextlib.suppress(OSError):
        owner = folder.stat().st_uid
        if is_guarded(folder, {0, owner}):
            trusted.add(owner)
    if status.st_uid not in trusted:
        raise PermissionDenied(
            f"{path} belongs to {login_of(status.st_uid)}, who may not answer for the "
            "host's broker; it must be root's, or of the user whom its folder belongs to"
        )
    return status.st_uid
