"""How the host's memory comes and goes: in large pages where there are some, and really
back to the system.

A page fault for each 4 KiB of fresh memory takes longer than to copy into it.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

ADVISE_HUGE = 14
"""MADV_HUGEPAGE of Linux (asm-generic/mman-common.h); `mmap` names it only where Python
was built with it.
"""
LEAST_BYTES = 4 << 20
"""Two large pages of x86-64: below that, a stretch rarely holds an aligned page."""


def prefer_large(address: int, size_bytes: int) -> None:
    """Ask for large pages under memory that has not been touched yet. A wish: not
    granted, it changes nothing.
    """
    advise = _advise()
    if advise is None or size_bytes < LEAST_BYTES:
        return
    # Whole pages only: the system refuses an address within a page.
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    advise(begin, end - begin, ADVISE_HUGE)


def return_unused() -> None:
    """Let the system have what was freed in small parts, which the C library would
    keep; glibc alone can.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """The system's madvise; None where there are no such pages."""
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
