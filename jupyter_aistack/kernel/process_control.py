"""What can be done to a kernel, or to a process below it, before it is ended: through
the broker, and by signals.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from jupyter_aistack.broker.remote.port import ProcessesOnDevice
from jupyter_aistack.system.processes import is_alive


class RunInThread(Protocol):
    """Calls a function in a thread; what it raises is logged, and None comes back."""

    def __call__(
        self, function: Callable[..., Any], /, *args: Any
    ) -> Awaitable[Any]: ...


class PidControl:
    """Control of a process that is no kernel: a worker, or a child of a kernel.

    Args:
        device: as its devices see it.
        pid: the process.
        started_at: when it started, so that no other is taken for it.
        run: calls functions in a thread.
    """

    def __init__(
        self,
        device: ProcessesOnDevice,
        pid: int,
        started_at: float | None,
        run: RunInThread,
    ) -> None:
        self._device = device
        self._pid = pid
        self._started_at = started_at
        self._run = run

    async def interrupt(self) -> None:
        """Nothing: such processes hear interrupts of their kernel, or ignore them on
        purpose.
        """

    async def is_working(self, since: float) -> bool | None:
        answer: bool | None = await self._run(self._device.is_working, since)
        return answer

    async def clients(self) -> frozenset[int]:
        return await self._run(self._device.clients) or frozenset()

    async def terminate(self, pid: int) -> None:
        await self._run(self._device.terminate, pid)

    async def signal(self, signum: int) -> None:
        if not await self.has_ended():
            await self._run(os.kill, self._pid, signum)

    async def has_ended(self) -> bool:
        return not is_alive(self._pid, self._started_at)


class KernelControl(PidControl):
    """Control of a kernel's process.

    Args:
        device: as its devices see it.
        run: calls functions in a thread.
        interrupt: interrupts the cell.
        signal: sends a signal to all of the kernel's processes.
        poll: the exit status, None while it runs.
    """

    def __init__(
        self,
        device: ProcessesOnDevice,
        run: RunInThread,
        *,
        interrupt: Callable[[], Awaitable[None]],
        signal: Callable[[int], Awaitable[None]],
        poll: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._device = device
        self._run = run
        self._interrupt = interrupt
        self._signal = signal
        self._poll = poll

    async def interrupt(self) -> None:
        await self._interrupt()

    async def signal(self, signum: int) -> None:
        await self._signal(signum)

    async def has_ended(self) -> bool:
        return await self._poll() is not None
