"""MPS for several users, by daemons of root: what of a daemon's folder is whose.

The folders that lead to a lease's pipes may be passed through by everybody and listed by
nobody. The directory that the lease's clients name is its user's alone. Who names a
neighbour's is refused by the system, and so is who asks the daemon itself.

In protocol 3 one daemon serves a GPU, with a server for several users and a namespace,
which is a directory, for each lease. In protocol 2 a daemon has one directory, so each
user of a GPU has a daemon of root's with a server of the user's own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.process_users import uid_of_same
from jupyter_aistack.system.users import uid_of_login

SHARED_ROOT = Path("/run/aistack-mps")
PASSABLE = 0o711
PRIVATE = 0o700
_PASSES = 0o001
_USER = re.compile(r"-u(\d+)\b")

SHARED_SERVER = (
    "its MPS server works for several users: a fault of one breaks the work of all, and "
    "their memory is not kept apart as that of one user's clients is; AIStack.gpu_sharing "
    '= "same-user" keeps each GPU to one user at a time'
)
"""What an administrator should know of a GPU that several users share."""


def shared_root(root: Path = SHARED_ROOT) -> Path:
    """The folder for the daemons of a broker that serves all users; made if need be.

    Raises:
        ProviderError: it cannot be made, or it is another user's.
    """
    try:
        root.mkdir(mode=PASSABLE, exist_ok=True)
        status = root.lstat()
        if root.is_symlink() or status.st_uid != os.getuid():
            raise ProviderError(f"{root} belongs to another user")
        root.chmod(PASSABLE)
    except OSError as error:
        raise ProviderError(
            f"the MPS folder {root} cannot be made: {error.strerror}"
        ) from error
    return root


def is_passable(folder: Path) -> bool:
    """Whether other users may pass through a folder: daemons in it serve them."""
    try:
        return bool(folder.stat().st_mode & _PASSES)
    except OSError:
        return False


def uid_behind(holder: Holder) -> int | None:
    """The user as whom a holder's process runs, by number; None for no user of this
    host.

    A user of a hub may be called like a login and run under another account, so the
    process is asked; the login tells only where it cannot be seen.
    """
    process = holder.process
    uid = None if process is None else uid_of_same(process)
    return uid_of_login(holder.user) if uid is None else uid


def user_suffix(uid: int | None) -> str:
    """What the folder of a user's own daemon is called behind its GPU; empty for none."""
    return "" if uid is None else f"-u{uid}"


def user_of(folder: Path) -> int | None:
    """The user whose own a daemon is by the name of its folder; None for everybody's."""
    match = _USER.search(folder.name)
    return int(match[1]) if match else None


def give_to(directory: Path, uid: int | None) -> None:
    """Make a directory of pipes a user's alone; None leaves it as it is.

    Raises:
        ProviderError: it cannot be given.
    """
    if uid is None:
        return
    try:
        # Closed first: in between it is nobody's but root's.
        directory.chmod(PRIVATE)
        os.chown(directory, uid, -1)
    except OSError as error:
        raise ProviderError(
            f"{directory} cannot be given to user {uid}: {error.strerror}"
        ) from error
