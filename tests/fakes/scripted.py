"""A GPU that holds, and suffers, what a test says."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, DeviceKind, Fault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, UnitSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.providers.base import Provider


class Lists(Provider):
    """One GPU of 80 GiB, and what each process holds there."""

    name = "lists"

    def __init__(self) -> None:
        self.held: Mapping[int, int | None] | None = {}
        self.failure: Exception | None = None
        self.asked = 0
        self.broken: tuple[Fault, ...] = ()

    def discover(self, host: str) -> tuple[Device, ...]:
        problem = "failed; it is looked at again" if self.broken else ""
        known = {
            "id": "GPU-0",
            "host": host,
            "kind": DeviceKind.GPU,
            "index": 0,
            "name": "H100",
        }
        return (Device(**known, memory_bytes=80 * GIB, problem=problem),)  # type: ignore[arg-type]

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
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
