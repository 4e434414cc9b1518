"""Waiting for what another process, or another thread, will do: looked at often, and
given up after a time that a busy machine does not need.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FAILED = "it did not happen in time"


async def until(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """The first true value of `condition`, while the event loop runs on."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, FAILED
        await asyncio.sleep(0.01)
    return value


def wait_until(
    condition: Callable[[], T],
    seconds: float = 120.0,
    otherwise: Callable[[], str] = lambda: FAILED,
) -> T:
    """The first true value of `condition`; fails with the text of `otherwise`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.01)
    return value
