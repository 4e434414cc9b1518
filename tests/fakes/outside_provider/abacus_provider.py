"""A provider as another package writes one: it knows nothing of jupyter_aistack but
what docs/providers.md names. Its devices are files that say how busy they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import DeviceVisibility
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, DeviceKind, Enforcement
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.exceptions import DriverNotFound, PrepareFailed
from jupyter_aistack.providers.base import Provider

SHOWN = "ABACUS_VISIBLE_DEVICES"


class AbacusProvider(Provider):
    """The abaci in the folder ``ABACUS_DEVICES``, whole ones only."""

    name = "abacus"
    order = 30
    visibility = DeviceVisibility(
        hidden={SHOWN: ""}, lists=(SHOWN,), prefixes=("ABACUS_",)
    )

    def discover(self, host: str) -> tuple[Device, ...]:
        folder = os.environ.get("ABACUS_DEVICES", "")
        if not folder:
            raise DriverNotFound("ABACUS_DEVICES names no folder")
        files = sorted(Path(folder).glob("*.json"))
        return tuple(
            Device(
                id=f"ABACUS-{file.stem}",
                host=host,
                kind=DeviceKind.GPU,
                index=index,
                name="Abacus 9000",
                memory_bytes=self._read(file.stem)["memory_bytes"],
                vendor="abacus",
                is_divisible=False,
            )
            for index, file in enumerate(files)
        )

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        ids = [slice_.device_id for slice_ in lease.slices]
        missing = [device_id for device_id in ids if device_id not in devices]
        if missing:
            raise PrepareFailed(f"{missing[0]} is gone", lease_id=lease.id)
        return Preparation(
            environment={SHOWN: ",".join(ids)},
            memory_limit_bytes=sum(devices[i].memory_bytes for i in ids),
            enforced_by=Enforcement.WHOLE,
        )

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        return {i: self._sample(i, leases) for i in devices}

    def _sample(self, device_id: str, leases: Mapping[str, Lease]) -> DeviceSample:
        beads = self._read(device_id.removeprefix("ABACUS-"))
        whole = DeviceSample(
            memory_bytes=beads["used_bytes"], utilization=beads["busy"], others=0.0
        )
        holders = [
            lease_id
            for lease_id, lease in leases.items()
            if any(slice_.device_id == device_id for slice_ in lease.slices)
        ]
        use = Usage(memory_bytes=beads["used_bytes"], utilization=beads["busy"])
        return replace(whole, leases=dict.fromkeys(holders, use))

    def _read(self, name: str) -> Any:
        return json.loads(
            Path(os.environ["ABACUS_DEVICES"], f"{name}.json").read_text()
        )
