"""The provider that tests of brokers begin with: what they do not look at is bare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, DeviceKind, Fault, ProcessUse
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.providers.base import Provider

Leases = Mapping[str, Lease]
Pids = Mapping[str, frozenset[int]]


class BareProvider(Provider):
    """GPUs that need no preparation and are not measured. Each of its methods raises
    what `failures` has under its name, or gives what `answers` has.

    Args:
        numbers: which GPUs there are.

    Attributes:
        memory_bytes: what each of them has.
        processes: what runs on each of them.
        files: whether their device files are known.
    """

    name = "bare"
    memory_bytes = 80 * GIB
    processes: tuple[ProcessUse, ...] = ()
    files = False

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers or (0,)
        self.failures: dict[str, BaseException] = {}
        self.answers: dict[str, Any] = {}

    def _answer(self, method: str, otherwise: Any) -> Any:
        if method in self.failures:
            raise self.failures[method]
        return self.answers.get(method, otherwise)

    def discover(self, host: str) -> tuple[Device, ...]:
        gpus = tuple(self._gpu(number, host) for number in self.numbers)
        return self._answer("discover", gpus)  # type: ignore[no-any-return]

    def _gpu(self, number: int, host: str) -> Device:
        return Device(
            id=f"GPU-{number}",
            host=host,
            kind=DeviceKind.GPU,
            index=number,
            name="H100",
            memory_bytes=self.memory_bytes,
            processes=self.processes,
        )

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        return self._answer("prepare", Preparation())  # type: ignore[no-any-return]

    def unprepare(self, lease: Lease) -> None:
        self._answer("unprepare", None)

    def device_files(
        self, lease: Lease, devices: Mapping[str, Device]
    ) -> tuple[str, ...] | None:
        ids = sorted({slice_.device_id[-1] for slice_ in lease.slices})
        return tuple(f"/dev/gpu{number}" for number in ids) if self.files else None

    def enter(self, lease: Lease, pid: int) -> None:
        self._answer("enter", None)

    def clients(self, lease: Lease) -> frozenset[int] | None:
        return self._answer("clients", frozenset())  # type: ignore[no-any-return]

    def terminate(self, lease: Lease, pid: int) -> None:
        self._answer("terminate", None)

    def driver_version(self) -> str:
        return self._answer("driver_version", "1.0")  # type: ignore[no-any-return]

    def faults(self) -> tuple[Fault, ...]:
        return self._answer("faults", ())  # type: ignore[no-any-return]

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Leases,
        pids: Pids,
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        measured = self.measure(devices, leases, pids)
        return self._answer("sample", measured)  # type: ignore[no-any-return]

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        """What a test's own provider measures."""
        return {}

    def has_moved(self, lease: Lease) -> None:
        self._answer("has_moved", None)

    def simulated_state(self, lease: Lease) -> int | None:
        return self._answer("simulated_state", None)  # type: ignore[no-any-return]

    def plan_room(self, wanted: Any, leased: Any, drained: Any = ()) -> Any:
        return self._answer("plan_room", None)

    def make_room(self, wanted: Any, leased: Any, drained: Any = ()) -> Any:
        return self._answer("make_room", ())

    def close(self) -> None:
        self._answer("close", None)
