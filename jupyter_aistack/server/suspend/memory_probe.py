"""What the driver says of a lease's memory right now; it is asked anew each time, and
before and after each move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_aistack.broker.liveness import root_pid
from jupyter_aistack.core.accounting.measurement import usage_of
from jupyter_aistack.core.model.device import Device, DeviceKind, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.suspend.departure import DeviceUse, has_left
from jupyter_aistack.core.suspend.model import DeviceMemory
from jupyter_aistack.system.processes import is_alive, tree

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

SETTLE_SECONDS = 2.0
SETTLE_POLL_SECONDS = 0.05
"""The driver may list a process for a moment after its memory is gone."""
REST_SECONDS = 3.0
"""A little more than what the driver's figure for work is averaged over, see
``providers.reading``.
"""
WORKING = 0.01
"""Busy share of device time from which something still works there, a thread in the
background.
"""


@dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """One measurement of memory.

    Attributes:
        pids: all processes of the lease.
        listed: those that the driver lists on any device.
        contexts: those of them that hold memory there, or may: a process that has only
            opened the driver is listed with nothing.
        elsewhere: devices that are not the lease's on which they hold memory.
        held_bytes: what they hold on each of the lease's devices, at most; None where
            the driver does not say.
        used_bytes: what is in use on the lease's devices together, by whomever; None
            where the driver does not say.
        busy: share of the devices' time they use; None where the driver does not say.
    """

    pids: frozenset[int] = frozenset()
    listed: frozenset[int] = frozenset()
    contexts: frozenset[int] = frozenset()
    elsewhere: tuple[str, ...] = ()
    held_bytes: int | None = None
    used_bytes: int | None = None
    busy: float | None = None

    @property
    def use(self) -> DeviceUse:
        """Its memory, as the rule of what has left looks at it."""
        return DeviceUse(held_bytes=self.held_bytes, used_bytes=self.used_bytes)


class MemoryProbe:
    """Reads for a broker's leases. Call it in a thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def read(self, lease: Lease) -> MemoryReading:
        """The lease's processes and what they hold."""
        self._broker.devices.forget()
        devices = self._broker.inventory().of_kind(DeviceKind.GPU)
        pids = self.pids(lease)
        home = set(home_of(lease))
        listed: set[int] = set()
        contexts: set[int] = set()
        elsewhere: list[str] = []
        held: list[int | None] = []
        for device in devices:
            own = [use for use in device.processes or () if use.pid in pids]
            holding = [use for use in own if use.memory_bytes != 0]
            listed |= {use.pid for use in own}
            contexts |= {use.pid for use in holding}
            if device.id in home:
                held.append(_sum([use.memory_bytes for use in holding]))
            elif holding:
                elsewhere.append(device.name)

        sample = self._broker.devices.fresh([lease], {lease.id: pids})
        usage = usage_of(lease, sample)
        known = [size for size in held if size is not None]
        is_known = usage.memory_bytes is not None and len(known) == len(held)
        return MemoryReading(
            pids=pids,
            listed=frozenset(listed),
            contexts=frozenset(contexts),
            elsewhere=tuple(elsewhere),
            held_bytes=max(known, default=0) if is_known else None,
            used_bytes=_sum([each.used_bytes for each in devices if each.id in home]),
            busy=usage.utilization,
        )

    def pids(self, lease: Lease) -> frozenset[int]:
        """The processes of a lease that run."""
        root = root_pid(lease.holder)
        return (
            tree({lease.id: root})[lease.id]
            if root is not None and is_alive(root, None)
            else frozenset()
        )

    def at_rest(self, lease: Lease) -> MemoryReading:
        """A reading once the lease's device rests, or the last reading before patience
        ran out.
        """
        deadline = time.monotonic() + REST_SECONDS
        while True:
            reading = self.read(lease)
            if (
                reading.busy is None
                or reading.busy <= WORKING
                or time.monotonic() >= deadline
            ):
                return reading
            time.sleep(SETTLE_POLL_SECONDS)

    def settled(self, lease: Lease, most_bytes: int) -> MemoryReading:
        """A reading once the lease holds `most_bytes` at most, or the last reading
        before patience ran out.
        """
        return self._read_until(
            lease, lambda reading: _holds_at_most(reading, most_bytes)
        )

    def left(self, lease: Lease, before: DeviceUse) -> MemoryReading:
        """A reading once what the lease held has left its devices, or the last reading
        before patience ran out.
        """
        return self._read_until(lease, lambda reading: has_left(before, reading.use))

    def _read_until(
        self, lease: Lease, is_settled: Callable[[MemoryReading], bool]
    ) -> MemoryReading:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            reading = self.read(lease)
            if is_settled(reading) or time.monotonic() >= deadline:
                return reading
            time.sleep(SETTLE_POLL_SECONDS)

    def cards(self, devices: Collection[str]) -> dict[str, DeviceMemory | None]:
        """The memory of each of these devices now; None where the driver does not say
        what is free.
        """
        self._broker.devices.forget()
        devices_here = (
            device
            for device in self._broker.inventory().devices
            if device.id in devices
        )
        return {device.id: _card(device) for device in devices_here}

    def is_simulated(self, lease: Lease) -> bool:
        """Whether nothing real stands behind its devices."""
        home = set(home_of(lease))
        return any(
            device.simulated
            for device in self._broker.inventory().devices
            if device.id in home
        )

    def simulated_bytes(self, lease: Lease) -> int:
        """What a lease on simulated devices would hold on each if they were real."""
        return self._broker.devices.simulated_state(lease) or 0


def _sum(figures: Sequence[int | None]) -> int | None:
    """None where a figure is not known."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


def _holds_at_most(reading: MemoryReading, most_bytes: int) -> bool:
    """True as well where the driver does not say: to wait would tell nothing."""
    return reading.held_bytes is None or reading.held_bytes <= most_bytes


def _card(device: Device) -> DeviceMemory | None:
    """Without its leases' processes, what they hold would be free as well."""
    if device.free_bytes is None:
        return None
    most = None
    if device.own_memory_bytes is not None:
        most = min(device.memory_bytes, device.free_bytes + device.own_memory_bytes)
    return DeviceMemory(
        budget_bytes=device.memory_bytes,
        free_bytes=device.free_bytes,
        most_free_bytes=most,
    )


def home_of(lease: Lease) -> tuple[str, ...]:
    """The GPUs of a lease."""
    return tuple(
        dict.fromkeys(
            slice_.device_id
            for slice_ in lease.slices
            if slice_.kind is not SliceKind.CPU
        )
    )
