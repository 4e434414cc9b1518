"""Asks a provider for one sample, and reads of it what a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.accounting.intervals import ProcessLoad
from jupyter_aistack.core.accounting.measurement import (
    is_working,
    load_of,
    memory_by_unit,
    usage_by_lease,
)
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import HostSample, Usage
from jupyter_aistack.providers.base import Provider

Devices = Mapping[str, Device]
Leases = Mapping[str, Lease]
Pids = Mapping[str, frozenset[int]]


def sample_of(
    provider: Provider,
    leases: Leases,
    pids: Pids,
    devices: Devices | None = None,
    since: float | None = None,
) -> HostSample:
    """One sample of these devices, or of all that the provider discovers."""
    if devices is None:
        devices = {device.id: device for device in provider.discover("box")}
    readings = provider.sample(devices, leases, pids, since)
    return HostSample(
        number=1, at=0.0, leases=leases, pids=pids, devices=devices, readings=readings
    )


def usage(
    provider: Provider, leases: Leases, pids: Pids, devices: Devices | None = None
) -> dict[str, Usage]:
    """Use by lease."""
    named = {
        lease_id: replace(lease, id=lease_id) for lease_id, lease in leases.items()
    }
    return usage_by_lease(sample_of(provider, named, pids, devices), named.values())


def device_usage(provider: Provider, devices: Devices) -> dict[str, Usage]:
    """Use by device."""
    return sample_of(provider, {}, {}, devices).device_usage()


def loads(
    provider: Provider, devices: Devices, leases: Leases, pids: Pids
) -> dict[str, ProcessLoad]:
    """The load of each healthy device."""
    sample = sample_of(provider, leases, pids, devices)
    healthy = {i: device for i, device in devices.items() if device.is_healthy}
    return {
        i: load_of(device, sample.readings[i], leases, pids)
        for i, device in healthy.items()
    }


def memory_by_process(
    provider: Provider, leases: Leases, devices: Devices
) -> dict[str, Mapping[int, int | None] | None]:
    """What each process holds, by UUID of the leases' slices."""
    sample = sample_of(provider, leases, {}, devices)
    return memory_by_unit(sample, _slices(leases))


def works(
    provider: Provider,
    leases: Leases,
    devices: Devices,
    pids: frozenset[int],
    since: float,
) -> bool | None:
    """Whether one of `pids` had a device of the leases at work since then."""
    sample = sample_of(provider, leases, {}, devices, since)
    return is_working(sample, _slices(leases), pids)


def _slices(leases: Leases) -> Iterable[Any]:
    return [slice_ for lease in leases.values() for slice_ in lease.slices]
