"""A GPU whose processes are those of `fake_checkpoint`: what one of them holds is there
while its state is not away. It stays listed all the same, with 0 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    ProcessUse,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.providers.base import Provider

GIB = 1 << 30


class FakeGPU(Provider):
    """One GPU of 16 GiB, and a second one.

    Attributes:
        held: bytes by process.
        states: the file of `fake_checkpoint`.
        stuck: bytes that stay although a state is away; None where the driver keeps
            that to itself. The process stays listed.
        stays_in_use: what is in use for a state that is away, of whomever it is.
        taken: bytes that strangers hold.
        is_silent: the driver does not say what processes hold.
        busy: share of the device's time that the processes use.
        elsewhere: a process that is listed on the second GPU.
        elsewhere_bytes: what it holds there.
    """

    name = "fake"

    def __init__(self, states: Path) -> None:
        self.states, self.held = states, dict[int, int]()
        self.stuck: int | None = 0
        self.taken, self.is_silent, self.busy = 0, False, 0.0
        self.stays_in_use = 0
        self.elsewhere: int | None = None
        self.elsewhere_bytes = GIB

    def _listed(self) -> dict[int, int | None]:
        """Bytes of each process the driver lists."""
        known = json.loads(self.states.read_text())
        away = {pid for pid in self.held if known.get(str(pid)) == "checkpointed"}
        return {
            pid: self.stuck if pid in away else size for pid, size in self.held.items()
        }

    def discover(self, host: str) -> tuple[Device, ...]:
        listed = self._listed()
        uses = tuple(
            ProcessUse(pid=pid, memory_bytes=size, name="python")
            for pid, size in sorted(listed.items())
        )
        hidden = self.stays_in_use if None in listed.values() else 0
        held = sum(size or 0 for size in listed.values()) + hidden
        free = 16 * GIB - held - self.taken
        other = (
            ()
            if self.elsewhere is None
            else (
                ProcessUse(
                    pid=self.elsewhere, memory_bytes=self.elsewhere_bytes, name="python"
                ),
            )
        )
        return (
            self._device(host, "a", uses, free),
            self._device(host, "b", other, 16 * GIB),
        )

    def _device(
        self, host: str, name: str, processes: tuple[ProcessUse, ...], free_bytes: int
    ) -> Device:
        return Device(
            id=f"GPU-{name}",
            host=host,
            kind=DeviceKind.GPU,
            index="ab".index(name),
            name=f"GPU {name}",
            memory_bytes=16 * GIB,
            processes=processes,
            free_bytes=free_bytes,
            used_bytes=16 * GIB - free_bytes,
        )

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        return Preparation(enforced_by=Enforcement.L0)

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        listed = self._listed()
        own = {i: [listed[pid] for pid in listed if pid in pids[i]] for i in leases}
        used = {
            i: Usage(memory_bytes=self._sum(own[i]), utilization=self.busy)
            for i in leases
        }
        return {i: DeviceSample(leases=used) for i in devices}

    def _sum(self, sizes: Sequence[int | None]) -> int | None:
        known = [size for size in sizes if size is not None]
        is_known = len(known) == len(sizes) and not self.is_silent
        return sum(known) if is_known else None
