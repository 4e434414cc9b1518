"""SQLite databases as files: their URLs, and who may read them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from urllib.parse import unquote

_PREFIX = "sqlite:///"
_ENCODED = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})
"""What would end the path in a URL, or begin an encoded character there."""

_SHARED = stat.S_ISGID | stat.S_IWGRP


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of a database file, whatever characters its path has."""
    return _PREFIX + str(path).translate(_ENCODED)


def sqlite_path(url: str) -> Path | None:
    """The file that a database URL names, absolute; None for other databases and for
    one in memory.
    """
    if not url.startswith(_PREFIX):
        return None
    name = unquote(url.removeprefix(_PREFIX).partition("?")[0])
    return None if name in ("", ":memory:") else Path(name).absolute()


def is_shared_folder(folder: Path) -> bool:
    """Whether an admin has set up a folder to be shared by a group: writable by it, and
    handing it on to new files.
    """
    return folder.stat().st_mode & _SHARED == _SHARED


def create_private(path: Path) -> None:
    """Make an empty database, and its folder where there is none, unless the file is
    there: readable by its owner alone, and by the group in a folder shared by it.

    SQLite gives the files beside it (``-wal``, ``-shm``) the same mode, whatever the
    umask.

    Raises:
        OSError: it cannot be made; ELOOP where a link leads to a file that is not
            there, or was made by another user.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign_link(path)
    if path.exists():
        return
    mode = 0o660 if is_shared_folder(path.parent) else 0o600
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        if path.is_symlink():
            raise _link_error(path) from None
        return  # another process was quicker
    try:
        if mode == 0o660:
            os.fchmod(opened, mode)  # most umasks would take the group's part away
    finally:
        os.close(opened)


def refuse_foreign_link(path: Path) -> None:
    """Follow no link that another user has made: in a folder that a group may write,
    anybody of it could lead root to any file.

    Raises:
        OSError: ELOOP, it is such a link.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise _link_error(path)


def _link_error(path: Path) -> OSError:
    return OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
