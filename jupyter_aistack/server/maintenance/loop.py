"""What a server does every few seconds: keep living leases, end dead ones, pass events
on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.server.context import RETRY_SECONDS, ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.realtime.event_bus import EventBus
from jupyter_aistack.server.realtime.sampler import Sampler

from .memory_enforcer import MemoryEnforcer

if TYPE_CHECKING:
    from jupyter_aistack.core.model.events import Event

WARM_UP_SECONDS = 1.0
"""Between the server's start and the building of its broker, unless someone needs it
sooner.
"""
LEAST_SECONDS = 0.05


class MaintenanceLoop:
    """The server's maintenance task.

    Args:
        context, kernels, bus, sampler: the parts it looks after.
        cycle_seconds: gives the time between two turns; asked once there is a broker.
        then: what else is done after each turn.
    """

    def __init__(
        self,
        context: ServerContext,
        kernels: KernelRegistry,
        bus: EventBus,
        sampler: Sampler,
        cycle_seconds: Callable[[], float],
        then: Iterable[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._context = context
        self._kernels = kernels
        self._bus = bus
        self._sampler = sampler
        self._ask_cycle_seconds = cycle_seconds
        self._cycle_seconds = RETRY_SECONDS
        self._warden = MemoryEnforcer(context, kernels)
        self._then = tuple(then)
        self._woken = asyncio.Event()
        self._complaints: dict[str, str] = {}
        context.on_change(self._woken.set)

    async def run(self) -> None:
        """Turn until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + WARM_UP_SECONDS
        while True:
            # Not `wait_for`: before Python 3.12 it may swallow a cancellation that
            # comes with its timeout.
            timer = loop.call_at(due, self._woken.set)
            await self._woken.wait()
            timer.cancel()
            self._woken.clear()
            if loop.time() >= due:
                await self._guarded("keep", self.keep)
                due = loop.time() + self._cycle_seconds
            await self._guarded("publish", self.publish)

    async def _guarded(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
            self._complaints.pop(name, None)
        except AIStackError as error:
            # Once, not every two seconds; what can be read may still not be written.
            if error.message != self._complaints.get(name):
                self._complaints[name] = error.message
                self._context.log.warning("jupyter_aistack: %s", error.message)
        except Exception:
            self._context.log.exception("jupyter_aistack's maintenance failed")

    async def keep(self) -> None:
        """One turn: release what kernels left behind, renew what lives, grant what
        fits.
        """
        self._cycle_seconds = RETRY_SECONDS
        broker = await self._context.ready()
        self._cycle_seconds = max(self._ask_cycle_seconds(), LEAST_SECONDS)
        report = await self._report()
        self._warden.act(broker, await self._context.run(broker.report, report))
        for step in self._then:
            await step()

    async def _report(self) -> KernelReport:
        """What has become of this server's kernels since the last turn."""
        return KernelReport(
            running=self._kernels.running(),
            busy=self._kernels.take_busy(),
            gone=await self._kernels.terminated(),
            renames=await self._kernels.renames(),
        )

    async def publish(self) -> None:
        """Put what has happened since on the bus, and have the picture taken anew."""
        if not self._context.is_built:
            return
        events = await self._context.run(self._bus.read, self._context.kernel_broker)
        if events:
            self._context.event_counts.update(event.kind.value for event in events)
            self._bus.emit(events)
            self._sampler.poke()
            await self._start_recording(events)

    async def _start_recording(self, events: Iterable[Event]) -> None:
        """Read the counters where a first lease begins: what a device drew before is
        not its own. All that follows is recorded in the loop's own turns.
        """
        if any(event.kind is EventKind.LEASE_GRANTED for event in events):
            await self._context.run(self._context.kernel_broker.record_first_use)
