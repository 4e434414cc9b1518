"""Touches memory of the host and tells how much is available meanwhile: ``python -m
tests.benchmarks.gpu.host_memory GIB``.

The memory of some machines grows as it is used, so what is available at first is not
what can be had. One line of JSON for each step, and one after all is given back. It
stops before the host is short of memory, and is the first to be ended where it is all
the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.system.memory import available_bytes

STEP_GIB = 4
RESERVE_BYTES = 2 * GIB
"""What is left alone."""
LONGEST_SECONDS = 20.0


def touched(most_gib: int) -> Iterator[dict[str, float | str]]:
    """Touch so much, a gibibyte at a time."""
    begin = time.monotonic()
    blocks: list[mmap.mmap] = []
    stopped = ""
    while len(blocks) < most_gib and not stopped:
        stopped = why_no_more(time.monotonic() - begin)
        if stopped:
            break
        try:
            block = mmap.mmap(-1, GIB)
        except OSError as error:
            stopped = str(error)
            break
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(block)), 1, GIB)
        blocks.append(block)
        if len(blocks) % STEP_GIB == 0:
            yield report(len(blocks))
    yield {**report(len(blocks)), "stopped": stopped}
    touched_gib = len(blocks)
    blocks.clear()
    yield {**report(touched_gib), "stopped": stopped, "given_back": 1.0}


def why_no_more(seconds: float) -> str:
    """Why no more may be touched; empty when it may."""
    if available_bytes() < RESERVE_BYTES + GIB:
        return "the host is short of memory"
    return "it takes too long" if seconds > LONGEST_SECONDS else ""


def report(touched_gib: int) -> dict[str, float | str]:
    """How much is touched, and how much is available now."""
    return {"touched_gib": touched_gib, "available_gib": available_bytes() / GIB}


def main() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for line in touched(int(sys.argv[1])):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
