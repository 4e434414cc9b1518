"""A GPU that holds, and suffers, what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.device_health import UNKNOWN_HEALTH, DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, UnitSample, Usage
from jupyter_aistack.exceptions import PrepareFailed
from jupyter_aistack.providers.base import Provider

from .bare_provider import BareProvider, Leases, Pids


class Lists(BareProvider):
    """One GPU of 80 GiB, and what each process holds there."""

    name = "lists"

    def __init__(self) -> None:
        super().__init__()
        self.held: Mapping[int, int | None] | None = {}
        self.asked = 0
        self.broken: tuple[Fault, ...] = ()
        self.health = UNKNOWN_HEALTH
        self.restored: Sequence[DeviceFault] | None = None
        self.is_closed = False

    def discover(self, host: str) -> tuple[Device, ...]:
        closed = "failed; it is looked at again" if self.broken else ""
        problem = self.health.problem or closed
        return tuple(
            replace(gpu, problem=problem, health=self.health)
            for gpu in super().discover(host)
        )

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:
        self.restored = faults

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        if self.is_closed:
            raise PrepareFailed("the device is closed")
        return super().prepare(lease, devices)

    def faults(self) -> tuple[Fault, ...]:
        return self.broken

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        self.asked += 1
        used = {i: Usage(memory_bytes=len(pids[i])) for i in leases if i in pids}
        units = {"GPU-0": UnitSample(memory=self.held)}
        return {"GPU-0": DeviceSample(units=units, leases=used)}


def exchange_providers(broker: Broker, *providers: Provider) -> None:
    """Make a broker that is built already see the devices of other providers."""
    made = DeviceManager(
        providers,
        host=broker.host,
        clock=broker.clock,
        held=broker.processes.holders,
    )
    vars(broker.devices).update(vars(made))
