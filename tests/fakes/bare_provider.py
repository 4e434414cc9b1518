"""The part of a provider that hosts of tests have no use for."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.providers.base import Provider


class BareProvider(Provider):
    """Devices that need no preparation, and are not measured; a host says which."""

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        return Preparation()

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        return {}
