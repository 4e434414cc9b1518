"""What people are told while they wait for a store: nothing for a short wait, then a
line now and then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from jupyter_aistack.system import standard_streams

FIRST_SECONDS = 2.0
"""Shorter waits pass without a word; each further line comes after twice the time."""


def tell(text: str) -> None:
    """Write a line where people look; where nobody can, nothing happens."""
    standard_streams.tell(f"tracking: {text}")


@contextlib.contextmanager
def announced(text: str) -> Iterator[None]:
    """Tell people what they wait for, once it has taken `FIRST_SECONDS`."""
    timer = threading.Timer(FIRST_SECONDS, tell, (text,))
    timer.name = "aistack-announce"
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class FlushProgress:
    """Says how much is stored while a run ends.

    Args:
        clock: seconds that only go on.
        say: what shows a line.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = tell,
    ) -> None:
        self._clock = clock
        self._say = say
        self._began = clock()
        self._next = FIRST_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` entries are stored."""
        waited = self._clock() - self._began
        if waited < self._next:
            return
        self._next = 2 * waited
        self._say(f"{done:,} of {total:,} entries stored after {waited:.0f} s")
