"""What the driver says of a lease's memory right now; it is asked anew each time, and
before and after each move.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_aistack.broker.processes import root_pid
from jupyter_aistack.core.accounting.measurement import usage_of
from jupyter_aistack.core.model.device import Device, DeviceKind, SliceKind
from jupyter_aistack.core.model.lease import Lease
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
        contexts: those that the driver lists on any device.
        elsewhere: devices that are not the lease's on which it lists them.
        held_bytes: what they hold on each of the lease's devices, at most; None where
            the driver does not say.
        busy: share of the devices' time they use; None where the driver does not say.
    """

    pids: frozenset[int] = frozenset()
    contexts: frozenset[int] = frozenset()
    elsewhere: tuple[str, ...] = ()
    held_bytes: int | None = None
    busy: float | None = None


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
        contexts: set[int] = set()
        elsewhere: list[str] = []
        most = 0
        for device in devices:
            own = [use for use in device.processes or () if use.pid in pids]
            contexts |= {use.pid for use in own}
            if device.id in home:
                most = max(most, sum(use.memory_bytes or 0 for use in own))
            elif own:
                elsewhere.append(device.name)

        sample = self._broker.devices.fresh([lease], {lease.id: pids})
        usage = usage_of(lease, sample)
        is_known = usage.memory_bytes is not None
        return MemoryReading(
            pids=pids,
            contexts=frozenset(contexts),
            elsewhere=tuple(elsewhere),
            held_bytes=most if is_known else None,
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
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            reading = self.read(lease)
            is_there = (
                reading.held_bytes is not None and reading.held_bytes <= most_bytes
            )
            if is_there or reading.held_bytes is None or time.monotonic() >= deadline:
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
