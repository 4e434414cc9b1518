"""A GPU that holds, and suffers, what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, DeviceKind, Fault
from jupyter_aistack.core.model.device_health import UNKNOWN_HEALTH, DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, UnitSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import PrepareFailed
from jupyter_aistack.providers.base import Provider


class Lists(Provider):
    """One GPU of 80 GiB, and what each process holds there."""

    name = "lists"

    def __init__(self) -> None:
        self.held: Mapping[int, int | None] | None = {}
        self.failure: Exception | None = None
        self.asked = 0
        self.broken: tuple[Fault, ...] = ()
        self.health = UNKNOWN_HEALTH
        self.restored: Sequence[DeviceFault] | None = None
        self.is_closed = False

    def discover(self, host: str) -> tuple[Device, ...]:
        closed = "failed; it is looked at again" if self.broken else ""
        problem = self.health.problem or closed
        known = {
            "id": "GPU-0",
            "host": host,
            "kind": DeviceKind.GPU,
            "index": 0,
            "name": "H100",
        }
        what = {"problem": problem, "health": self.health}
        return (Device(**known, **what, memory_bytes=80 * GIB),)  # type: ignore[arg-type]

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:
        self.restored = faults

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        if self.is_closed:
            raise PrepareFailed("the device is closed")
        return Preparation()

    def faults(self) -> tuple[Fault, ...]:
        return self.broken

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        self.asked += 1
        if self.failure:
            raise self.failure
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
