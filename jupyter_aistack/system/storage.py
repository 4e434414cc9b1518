"""What keeps a file from being written in a folder, by name and tried out."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from enum import StrEnum
from pathlib import Path

try:
    import fcntl
    import resource
except ImportError:  # Windows locks in another way, and limits no sizes
    fcntl = None  # type: ignore[assignment]
    resource = None  # type: ignore[assignment]

PROBE_BYTES = 4096
GROWTH_BYTES = 32 * 1024
"""By so much a database's files may grow at once."""


class StorageProblem(StrEnum):
    """Why a file cannot be kept somewhere."""

    NOT_ALLOWED = "not-allowed"  # this user may not
    READ_ONLY = "read-only"  # nobody may: the file system is mounted so
    FULL = "full"
    OVER_QUOTA = "over-quota"
    TOO_LARGE = "too-large"  # beyond the size that files of this process may have
    NO_LOCKS = "no-locks"  # the file system has no file locks
    FAILING = "failing"  # it reports input or output errors
    NO_FOLDER = "no-folder"  # there is no such folder
    NOT_A_FOLDER = "not-a-folder"  # part of the path is a file
    IS_FOLDER = "is-folder"
    LINK = "link"  # a symbolic link to nothing, or that another user has made
    UNKNOWN = "unknown"  # anything else


_BY_ERRNO = {
    errno.EACCES: StorageProblem.NOT_ALLOWED,
    errno.EPERM: StorageProblem.NOT_ALLOWED,
    errno.EROFS: StorageProblem.READ_ONLY,
    errno.ENOSPC: StorageProblem.FULL,
    errno.EDQUOT: StorageProblem.OVER_QUOTA,
    errno.EFBIG: StorageProblem.TOO_LARGE,
    errno.ENOLCK: StorageProblem.NO_LOCKS,
    errno.EIO: StorageProblem.FAILING,
    errno.ESTALE: StorageProblem.FAILING,
    errno.ENOENT: StorageProblem.NO_FOLDER,
    errno.ENOTDIR: StorageProblem.NOT_A_FOLDER,
    errno.EISDIR: StorageProblem.IS_FOLDER,
    errno.EEXIST: StorageProblem.NOT_A_FOLDER,  # where a folder was to be made
    errno.ELOOP: StorageProblem.LINK,
}


def problem_of(error: OSError) -> StorageProblem:
    """What an error of the system says about a place."""
    return _BY_ERRNO.get(error.errno or 0, StorageProblem.UNKNOWN)


def storage_problem(folder: Path) -> StorageProblem | None:
    """What keeps this process from keeping and locking files in a folder; None for
    nothing. A file is made there for that, and taken away.
    """
    if is_read_only(folder):
        return StorageProblem.READ_ONLY
    try:
        descriptor, name = tempfile.mkstemp(prefix=".aistack-", dir=folder)
    except OSError as error:
        return problem_of(error)
    try:
        os.write(descriptor, bytes(PROBE_BYTES))
        return None if _can_lock(descriptor) else StorageProblem.NO_LOCKS
    except OSError as error:
        return problem_of(error)
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(name)


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder is mounted so that nobody may write."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def is_at_size_limit(path: Path) -> bool:
    """Whether a file is as large as files of this process may be, or nearly."""
    if resource is None:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return False
    sizes = [0]
    for name in (path, f"{path}-wal", f"{path}-journal", f"{path}-shm"):
        with contextlib.suppress(OSError):
            sizes.append(os.stat(name).st_size)
    return max(sizes) + GROWTH_BYTES > limit


def _can_lock(descriptor: int) -> bool:
    """Whether the kind of locks that SQLite uses can be had of a new file."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that is there, as far as can be seen."""
    for folder in path.parents:
        if os.path.isdir(folder):
            return folder
    return path.parent
