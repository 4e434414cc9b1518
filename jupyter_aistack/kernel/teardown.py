"""How a process that has started CUDA is ended, so that its neighbours on the GPU stay
whole.

NVIDIA calls what follows from killing a client of MPS with work in flight undefined
(NVIDIA MPS documentation; a hang until the next reboot in pytorch/pytorch#32575).
Jupyter kills a kernel when it does not answer. So, before that: the cell is
interrupted, the device's work is waited for, the clients are ended through their
server, and the process is asked to end. A Python kernel runs nothing on its control
channel, so it cannot be asked to synchronise its device: that the driver sees no work
of it any more must do.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

SETTLE_SECONDS = 3.0
"""The longest wait for the device's work to end."""
SURE_SECONDS = 1.0
"""How long no work must have been seen: the driver takes a sample every 0.2 to 1
second.
"""
TERM_SECONDS = 2.0
"""Between the request to end and the end."""
POLL_SECONDS = 0.1


class ProcessControl(Protocol):
    """What can be done to the process; nothing here raises because a part of it
    fails.
    """

    async def interrupt(self) -> None:
        """Interrupt what it runs."""

    async def is_working(self, since: float) -> bool | None:
        """Whether a device has worked for it since that moment (seconds since the
        epoch); None where the driver does not say.
        """

    async def clients(self) -> frozenset[int]:
        """It and those below it that a server of MPS knows."""

    async def terminate(self, pid: int) -> None:
        """End one such client's work through the server."""

    async def signal(self, signum: int) -> None:
        """Send a signal."""

    async def has_ended(self) -> bool:
        """Whether it has ended."""


class Teardown:
    """Ends one process, step by step.

    Args:
        control: what can be done to it.
        clock: seconds since the epoch.
        sleep: waits.
    """

    def __init__(
        self,
        control: ProcessControl,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._control = control
        self._clock = clock
        self._sleep = sleep

    async def free_device(self) -> None:
        """Everything before the signal that ends it: it may be killed afterwards."""
        # The order matters: a client of MPS that is ended with work in flight may hang
        # its neighbours, so first nothing new is started, then what runs is waited for,
        # and only then are the clients ended.
        await self._control.interrupt()
        await self._settle()
        for pid in sorted(await self._control.clients()):
            await self._control.terminate(pid)

    async def ask(self) -> None:
        """Ask it to end, and give it time to."""
        if not await self._control.has_ended():
            await self._control.signal(signal.SIGTERM)
            await self._wait(TERM_SECONDS, self._control.has_ended)

    async def end(self) -> None:
        """All of it."""
        await self.free_device()
        await self.ask()
        if not await self._control.has_ended():
            await self._control.signal(signal.SIGKILL)

    async def _settle(self) -> None:
        await self._wait(SURE_SECONDS, self._control.has_ended)
        await self._wait(SETTLE_SECONDS - SURE_SECONDS, self._is_quiet)

    async def _is_quiet(self) -> bool:
        """Where the driver does not say, the wait so far must do."""
        if await self._control.has_ended():
            return True
        return not await self._control.is_working(self._clock() - SURE_SECONDS)

    async def _wait(
        self, seconds: float, is_over: Callable[[], Awaitable[bool]]
    ) -> None:
        """Counted in pauses, not by the clock, which may be set meanwhile."""
        for _ in range(round(seconds / POLL_SECONDS)):
            if await is_over():
                return
            await self._sleep(POLL_SECONDS)
