"""What can be done to a kernel, or to a process below it, before it is ended: through
the broker, and by signals.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_aistack.core.accounting.measurement import is_working, memory_by_unit
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import HostSample
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.processes import is_alive, tree

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker


class RunInThread(Protocol):
    """Calls a function in a thread; what it raises is logged, and None comes back."""

    def __call__(
        self, function: Callable[..., Any], /, *args: Any
    ) -> Awaitable[Any]: ...


class DeviceProcesses:
    """A process and those below it, as the devices of some leases see them.
    Synchronous: call it in a thread.

    Args:
        broker: of this host.
        leases: what they use.
        pid: the process.
    """

    def __init__(self, broker: Broker, leases: Sequence[Lease], pid: int) -> None:
        self._broker = broker
        self._leases = leases
        self._pid = pid

    def has_started(self) -> bool:
        """Whether any of them holds memory of a device, or is known to a server; True
        where that cannot be read.
        """
        pids = self._pids()
        held = memory_by_unit(self._measure(pids), self._slices())
        if any(
            processes is None or pids & processes.keys() for processes in held.values()
        ):
            return True
        return bool(self.clients())

    def is_working(self, since: float) -> bool | None:
        """Whether a device has worked for any of them since then; None when the driver
        does not say.
        """
        pids = self._pids()
        return is_working(self._measure(pids, since), self._slices(), pids)

    def clients(self) -> frozenset[int]:
        """Those of them that a server knows; none where it does not answer."""
        return (
            frozenset(pid for lease in self._leases for pid in self._known(lease))
            & self._pids()
        )

    def terminate(self, pid: int) -> None:
        """End a client's work through its server. Raises `ProviderError`."""
        for lease in self._leases:
            if pid in self._known(lease):
                self._broker.terminate(lease, pid)

    def _known(self, lease: Lease) -> frozenset[int]:
        try:
            return self._broker.clients(lease) or frozenset()
        except ProviderError:
            return frozenset()

    def _measure(self, pids: frozenset[int], since: float | None = None) -> HostSample:
        own = dict.fromkeys((lease.id for lease in self._leases), pids)
        return self._broker.devices.fresh(self._leases, own, since)

    def _pids(self) -> frozenset[int]:
        return tree({"": self._pid})[""].union(
            *(self._broker.memory.orphan_processes(lease.id) for lease in self._leases)
        )

    def _slices(self) -> list[Slice]:
        return [slice_ for lease in self._leases for slice_ in lease.slices]


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
        device: DeviceProcesses,
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
        device: DeviceProcesses,
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
