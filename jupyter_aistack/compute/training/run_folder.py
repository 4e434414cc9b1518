"""The folder where notebook, workers and ranks of one run meet, and who it belongs to.

The notebook's process holds a lock in it for as long as it lives. The lock is the
kernel's: it is kept while the process is stopped, is gone with it however it ends, and
can be tried from any container that sees the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jupyter_aistack.system.interrupts import DeferredInterrupts

OWNER_FILE = "owner"
_PREFIX = "aistack-run-"

_held: set[int] = set()
"""Descriptors of the locks of this process's runs."""


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A private folder for one run; leases are of this host, so all its processes see
    it.
    """
    _remove_orphaned_folders()
    with contextlib.ExitStack() as stack:
        with DeferredInterrupts():
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.callback(_remove, folder)
            descriptor = _lock(folder / OWNER_FILE)
            stack.callback(_unlock, descriptor)
        yield folder


def has_owner(owner_file: Path) -> bool:
    """Whether the process that made a run's folder may live; unknown is yes."""
    try:
        descriptor = os.open(owner_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _lock(owner_file: Path) -> int:
    # Appears under its name only when it is locked: nobody may find it free before.
    part = owner_file.with_suffix(".new")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _held.add(descriptor)
    with contextlib.suppress(OSError):  # no locks here: then nobody can take it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        part.rename(owner_file)
    return descriptor


def _unlock(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _forget_locks() -> None:
    """In a forked child: the locks are its parent's, and end with that."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _remove(folder: Path) -> None:
    with DeferredInterrupts():
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphaned_folders() -> None:
    """Remove what kernels that were killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another user's folder, or a folder that another kernel is removing right now.
        with contextlib.suppress(OSError):
            if _is_orphaned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_orphaned(folder: Path) -> bool:
    is_own = folder.stat().st_uid == os.getuid()
    return is_own and not has_owner(folder / OWNER_FILE)
