"""Which of the process ids that a driver lists are ids of this PID namespace.

A driver may list the ids of the host's own namespace. In a container they name no
process, or another one than is meant.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

INITIAL_NAMESPACE = 0xEFFFFFFC
"""The inode of the host's own PID namespace, ``PROC_PID_INIT_INO`` of Linux."""
MOST_REMEMBERED = 4096
"""So many ids are remembered at most."""


def exists(pid: int) -> bool:
    """Whether there is a process of that id in this PID namespace, whoever owns it and
    whether it can be looked at or not.
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True


def is_initial() -> bool:
    """Whether this is the host's own PID namespace; True where there are none, or it
    cannot be looked at.
    """
    try:
        return os.stat("/proc/self/ns/pid").st_ino == INITIAL_NAMESPACE
    except OSError:
        return True


class PidNamespace:
    """Tells ids of this namespace from those of another.

    An id without a process is, in the host's own namespace, of a process that has just
    ended. In a container it may be that too, where the process was seen before; else
    it is of another namespace.

    Args:
        exists: whether there is a process of an id.
        is_initial: whether this is the host's own namespace.
    """

    def __init__(
        self,
        exists: Callable[[int], bool] = exists,
        is_initial: Callable[[], bool] = is_initial,
    ) -> None:
        self._exists = exists
        self._is_initial = is_initial
        self._lock = threading.Lock()
        self._seen: dict[int, None] = {}

    @property
    def is_of_host(self) -> bool:
        """Whether listed ids mean the processes of this namespace for certain: it is the
        host's own.
        """
        return self._is_initial()

    def elsewhere(self, pids: Iterable[int]) -> frozenset[int]:
        """Those of some listed ids that name no process here and never did."""
        if self._is_initial():
            return frozenset()
        with self._lock:
            listed = frozenset(pids)
            here = {pid for pid in listed if self._exists(pid)}
            absent = listed - here - self._seen.keys()
            self._remember(here)
            return frozenset(absent)

    def _remember(self, pids: Iterable[int]) -> None:
        """The ids that were seen last are kept."""
        for pid in pids:
            self._seen.pop(pid, None)
            self._seen[pid] = None
        for pid in list(self._seen)[: max(0, len(self._seen) - MOST_REMEMBERED)]:
            del self._seen[pid]
