"""What a server does every few seconds: keep living leases, end dead ones, pass events
on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.exceptions import AIStackError, LeaseError
from jupyter_aistack.server.context import RETRY_SECONDS, ServerContext
from jupyter_aistack.server.kernels import KernelRegistry, Rename
from jupyter_aistack.server.realtime.event_bus import EventBus
from jupyter_aistack.server.realtime.sampler import Sampler

from .memory_enforcer import MemoryEnforcer

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.core.model.events import Event
    from jupyter_aistack.core.model.lease import Lease
    from jupyter_aistack.core.model.request import Holder, Request

    from .activity import ActivitySample

WARM_UP_SECONDS = 1.0
"""Between the server's start and the building of its broker, unless someone needs it
sooner.
"""
LEAST_SECONDS = 0.05
STALE_SECONDS = 30.0
"""Figures of use that are older say nothing about now."""


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
        activity = self._activity(broker)
        gone = await self._kernels.terminated()
        await self._context.run(renew_leases, broker, gone, activity)
        renames = await self._kernels.renames()
        if renames:
            await self._context.run(relabel, broker, renames)
        self._warden.act(broker)
        for step in self._then:
            await step()

    def _activity(self, broker: Broker) -> ActivitySample:
        """Where something is at work, by the sample that was taken last."""
        from jupyter_aistack.system.users import current_user

        from .activity import ActivitySample

        return ActivitySample(
            user=current_user(),
            kernels=self._kernels.running(),
            busy=self._kernels.take_busy(),
            usage=broker.recent_usage(STALE_SECONDS),
        )

    async def publish(self) -> None:
        """Put what has happened since on the bus, and have the picture taken anew."""
        if not self._context.is_built:
            return
        events = await self._context.run(self._bus.read, self._context.broker)
        if events:
            self._context.event_counts.update(event.kind.value for event in events)
            self._bus.emit(events)
            self._sampler.poke()
            await self._start_recording(events)

    async def _start_recording(self, events: Iterable[Event]) -> None:
        """Read the counters where a first lease begins: what a device drew before is
        not its own. All that follows is recorded in the loop's own turns.
        """
        broker = self._context.broker
        is_new = any(event.kind is EventKind.LEASE_GRANTED for event in events)
        if is_new and not broker.usage_meter.is_open:
            await self._context.run(broker.record_usage)


def renew_leases(
    broker: Broker, gone: frozenset[str], activity: ActivitySample | None = None
) -> None:
    """End what belongs to kernels that are `gone`, note what is in use, then run the
    broker's maintenance.

    A host where nothing is leased or wanted is left alone: asking its drivers would
    keep a sleeping GPU awake.
    """
    state = broker.host_state.read()
    if not state.leases and not state.requests:
        broker.record_usage()
        return
    # Requests first: a lease that is released would go to the next request of the same
    # dead kernel.
    for request in state.requests:
        if _is_of(request, gone):
            broker.cancel(request.id)
    for lease in state.leases:
        if _is_of(lease, gone):
            with contextlib.suppress(LeaseError):  # it ended between the two calls
                broker.release(lease.id, lease.token)
    _touch(broker, state.leases, activity)
    broker.maintain()


def relabel(broker: Broker, renames: Mapping[str, Rename]) -> None:
    """Have leases and waiting requests that are called by a notebook's former name
    called by its name of now. A name that a user has chosen stays.
    """
    state = broker.host_state.read()
    ledger = broker.host_state.ledger
    for request in state.requests:
        holder = _renamed(request.holder, renames)
        if holder != request.holder:
            ledger.rebind(request.id, broker.clock(), holder)
    for lease in state.leases:
        holder = _renamed(lease.holder, renames)
        if holder == lease.holder or not lease.is_live:
            continue
        with contextlib.suppress(LeaseError):  # it ended between the two calls
            ledger.bind(lease.id, lease.token, broker.clock(), holder=holder)


def _renamed(holder: Holder, renames: Mapping[str, Rename]) -> Holder:
    """A holder by the name of now of the notebook that it belongs to."""
    from jupyter_aistack.system.users import current_user

    kernel_id = holder.parent or holder.id
    rename = renames.get(kernel_id)
    if rename is None or not holder.belongs_to(current_user(), kernel_id):
        return holder
    if holder.label not in rename.former:
        return holder
    return replace(holder, label=rename.label)


def _touch(
    broker: Broker, leases: Iterable[Lease], activity: ActivitySample | None
) -> None:
    """Note use before the holders of idle leases are notified: a lease must not be
    reclaimed in the moment it is used again.
    """
    from .activity import to_touch

    if activity is None or not activity.kernels:
        return
    used = to_touch(leases, activity, broker.policy, broker.clock())
    if used:
        broker.record_activity(used)


def _is_of(item: Lease | Request, gone: frozenset[str]) -> bool:
    from jupyter_aistack.system.users import current_user

    user = current_user()
    return any(item.holder.ends_with(user, kernel_id) for kernel_id in gone)
