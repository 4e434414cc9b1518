"""Ending with the process that started this process. Kept apart from Dask, which a
training rank has no use for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

WATCH_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, *, by_signal: bool = False) -> None:
    """End this process, hard, once process `parent` is no longer its parent.

    Dask's workers watch a pipe to their parent; a process the parent forked may hold
    that pipe open after the parent's death. Who our parent is cannot be held open.

    Args:
        parent: pid of the process to live with.
        by_signal: let the kernel (Linux) kill us too, which works even while a library
            holds the GIL. The signal comes when the *thread* that started us ends, so
            only for processes whose starter waits for them.
    """
    if by_signal:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(
        target=_watch, args=(parent,), name="aistack-parent", daemon=True
    ).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
