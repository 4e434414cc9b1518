"""Which cores the threads of other processes may run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path


def rebind(
    pids: Collection[int], guaranteed: Collection[int], cores: Collection[int]
) -> bool:
    """Bind all threads of some processes to `cores`, which were bound to others before.

    A thread that may run on all of the `guaranteed` cores was bound by us; any other by
    its program, and keeps what it may have of its own choice.

    Returns:
        Whether any process was there, and all could be bound.
    """
    seen: set[int] = set()
    # Until a look shows none that is new: one that was started meanwhile, by a thread
    # that was not bound yet, has the cores of before.
    while threads := set(_threads_of(pids)) - seen:
        seen |= threads
        for thread in threads:
            try:
                _rebind_thread(thread, set(guaranteed), set(cores))
            except ProcessLookupError:  # it ended meanwhile
                continue
            except OSError:  # another user's, or no core is left to its control group
                return False
    return bool(seen)


def _rebind_thread(thread: int, guaranteed: set[int], cores: set[int]) -> None:
    allowed = os.sched_getaffinity(thread)
    wanted = cores
    if not guaranteed <= allowed:
        wanted = (allowed & cores) or cores
    if allowed != wanted:
        os.sched_setaffinity(thread, wanted)


def _threads_of(pids: Collection[int]) -> Iterator[int]:
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/task").iterdir():
                yield int(entry.name)
