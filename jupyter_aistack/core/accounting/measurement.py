"""Whose use it is: a sample of a host's devices, divided by lease."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from jupyter_aistack.core.model.device import Device, MIGInstance, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import (
    DeviceSample,
    HostSample,
    UnitSample,
    Usage,
)

from .intervals import ProcessLoad
from .mps_service import NO_SERVICE, MPSService, is_by_mps, served_leases

T = TypeVar("T")
Activity = tuple[dict[str, float], float | None]
"""Activity of each lease as a share of the device, and of all other processes."""


# -- use, as people see it -------------------------------------------------------------


def usage_by_lease(sample: HostSample, leases: Iterable[Lease]) -> dict[str, Usage]:
    """What each lease used; unknown for a lease whose processes are not known."""
    return {
        lease.id: usage_of(lease, sample) if lease.id in sample.pids else Usage()
        for lease in leases
    }


def usage_of(lease: Lease, sample: HostSample) -> Usage:
    """Memory and busy share over a lease's processes.

    Memory adds up over its slices and the busy share is their mean, each known only
    where it is known of all of them.
    """
    parts: list[Usage] = []
    for device_id in dict.fromkeys(slice_.device_id for slice_ in lease.slices):
        parts.extend(_usage_on_device(device_id, lease, sample))
    memory = _known(part.memory_bytes for part in parts)
    shares = _known(part.utilization for part in parts)
    return Usage(
        memory_bytes=sum(memory) if _is_complete(memory, parts) else None,
        utilization=sum(shares) / len(parts) if _is_complete(shares, parts) else None,
    )


def _usage_on_device(device_id: str, lease: Lease, sample: HostSample) -> list[Usage]:
    """The use of each slice on a device, or of all of them together."""
    reading = sample.readings.get(device_id)
    if reading is None:
        return [Usage()]
    if lease.id in reading.leases:
        return [reading.leases[lease.id]]
    slices = [slice_ for slice_ in lease.slices if slice_.device_id == device_id]
    return [_usage_on(slice_, lease, sample, reading) for slice_ in slices]


def _known(figures: Iterable[T | None]) -> list[T]:
    return [figure for figure in figures if figure is not None]


def _is_complete(known: Sequence[object], parts: Sequence[Usage]) -> bool:
    return bool(parts) and len(known) == len(parts)


def _usage_on(
    slice_: Slice, lease: Lease, sample: HostSample, reading: DeviceSample
) -> Usage:
    unit = reading.units.get(slice_.uuid, UnitSample())
    pids = sample.pids[lease.id]
    share = _instance_share(slice_, unit)
    if slice_.kind is not SliceKind.MIG:
        share = _busy_share(unit, pids)
    if not share and _is_hidden(lease, unit, reading.servers):
        share = _served_share(lease, sample, reading, unit)
    return Usage(memory_bytes=memory_of(unit, pids), utilization=share)


def _instance_share(slice_: Slice, unit: UnitSample) -> float | None:
    """How busy a MIG instance is, which is its lease's alone; None where it shares a
    figure with others, or the driver has none.
    """
    is_shared = 0 < slice_.compute_slices < slice_.gpu_slices
    return None if is_shared else unit.activity


def _served_share(
    lease: Lease, sample: HostSample, reading: DeviceSample, unit: UnitSample
) -> float | None:
    """How busy an MPS server was for a lease; None where it may have worked for
    several.
    """
    served = served_leases(sample.leases, sample.pids, unit)
    if served.keys() == {lease.id}:
        return min(1.0, _sum_of(unit.busy or {}, reading.servers))
    return None


def memory_of(unit: UnitSample, pids: frozenset[int]) -> int | None:
    """Bytes that processes hold on a unit together."""
    if unit.memory is None:
        return None
    own = [held for pid, held in unit.memory.items() if pid in pids]
    known = [held for held in own if held is not None]
    if len(known) == len(own):
        return sum(known)
    return None


def _busy_share(unit: UnitSample, pids: frozenset[int]) -> float | None:
    if unit.busy is None:
        return None
    return min(1.0, sum(share for pid, share in unit.busy.items() if pid in pids))


def _is_hidden(lease: Lease, unit: UnitSample, servers: frozenset[int]) -> bool:
    """Whether a lease's work may be what its MPS server is seen to do."""
    return is_by_mps(lease) and bool(_workers(unit) & servers)


def _workers(unit: UnitSample) -> frozenset[int]:
    busy = unit.busy or {}
    return frozenset(pid for pid, share in busy.items() if share > 0)


# -- work and lists of processes -------------------------------------------------------


def memory_by_unit(
    sample: HostSample, slices: Iterable[Slice]
) -> dict[str, Mapping[int, int | None] | None]:
    """Bytes each process holds, by UUID of the GPU or MIG instance the slices are cut
    from.

    None for a unit whose list cannot be read now; a unit that no provider can list is
    left out.
    """
    uuids = dict.fromkeys(slice_.uuid for slice_ in slices if slice_.uuid)
    units = {uuid: sample.unit(uuid) for uuid in uuids}
    return {uuid: unit.memory for uuid, unit in units.items() if unit is not None}


def is_working(
    sample: HostSample, slices: Iterable[Slice], pids: frozenset[int]
) -> bool | None:
    """Whether a GPU worked for one of `pids` in the sampled time; None when one of them
    cannot tell, or a server works that may do so for one of them.
    """
    uuids = dict.fromkeys(slice_.uuid for slice_ in slices if slice_.uuid)
    units = [sample.unit(uuid) for uuid in uuids]
    workers = frozenset().union(*(_workers(unit) for unit in units if unit))
    servers = frozenset().union(
        *(reading.servers for reading in sample.readings.values())
    )
    if pids & workers:
        return True
    is_known = all(unit is not None and unit.busy is not None for unit in units)
    if is_known and not workers & servers:
        return False
    return None


# -- load, as energy is divided by -----------------------------------------------------


def load_of(
    device: Device,
    reading: DeviceSample,
    leases: Mapping[str, Lease],
    pids: Mapping[str, frozenset[int]],
) -> ProcessLoad:
    """A device's energy counter, and how active each lease on it was.

    Args:
        device: the device; a simulated one has no load.
        reading: what it reported.
        leases: the leases on it, also those that ended since the sample before.
        pids: the processes of each lease; those of a lease that is missing are not
            known.
    """
    if device.simulated:
        return ProcessLoad()
    slices = {
        lease_id: [each for each in lease.slices if each.device_id == device.id]
        for lease_id, lease in leases.items()
    }
    held = {lease_id: own for lease_id, own in slices.items() if own}
    if reading.leases:
        return _load_by_lease(reading, held)
    service = _service_on(device, reading, leases, held, pids)
    busy, others = _activity(device, reading, held, pids, service)
    memory = {
        lease_id: _memory_on(reading, own, pids[lease_id])
        for lease_id, own in held.items()
        if lease_id in pids
    }
    return ProcessLoad(
        millijoules=reading.millijoules,
        busy=busy,
        others=others,
        estimated=_estimated(device, reading, held, pids, service),
        memory={i: size for i, size in memory.items() if size is not None},
    )


def _load_by_lease(
    reading: DeviceSample, held: Mapping[str, Sequence[Slice]]
) -> ProcessLoad:
    shares = {i: float(sum(each.fraction for each in own)) for i, own in held.items()}
    used = {i: use for i, use in reading.leases.items() if i in shares}
    busy = {
        i: use.utilization * shares[i]
        for i, use in used.items()
        if use.utilization is not None
    }
    memory = {
        i: use.memory_bytes for i, use in used.items() if use.memory_bytes is not None
    }
    return ProcessLoad(
        millijoules=reading.millijoules,
        busy=busy,
        others=reading.others,
        memory=memory,
    )


def _memory_on(
    reading: DeviceSample, slices: Iterable[Slice], pids: frozenset[int]
) -> int | None:
    units = [reading.units.get(slice_.uuid, UnitSample()) for slice_ in slices]
    sizes = [memory_of(unit, pids) for unit in units]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        return sum(known)
    return None


def _service_on(
    device: Device,
    reading: DeviceSample,
    leases: Mapping[str, Lease],
    held: Mapping[str, Sequence[Slice]],
    pids: Mapping[str, frozenset[int]],
) -> MPSService:
    """The MPS servers of a device; none on one that is cut into instances."""
    if device.mig_enabled:
        return NO_SERVICE
    on_device = {lease_id: leases[lease_id] for lease_id in held}
    unit = reading.units.get(device.id, UnitSample())
    return MPSService(
        leases=frozenset(i for i, lease in on_device.items() if is_by_mps(lease)),
        servers=reading.servers,
        clients=served_leases(on_device, pids, unit),
    )


def _activity(
    device: Device,
    reading: DeviceSample,
    held: Mapping[str, Sequence[Slice]],
    pids: Mapping[str, frozenset[int]],
    service: MPSService,
) -> Activity:
    if device.mig_enabled:
        return activity_by_instance(device, held, reading.units)
    known = {lease_id: pids[lease_id] for lease_id in held if lease_id in pids}
    unit = reading.units.get(device.id, UnitSample())
    return activity_by_process(unit.busy, known, service, unit.activity)


def _estimated(
    device: Device,
    reading: DeviceSample,
    held: Mapping[str, Sequence[Slice]],
    pids: Mapping[str, frozenset[int]],
    service: MPSService,
) -> frozenset[str]:
    """The leases whose activity is work of several, divided among them."""
    if device.mig_enabled:
        holders = _holders(held)
        return frozenset(
            lease_id
            for lease_id, own in held.items()
            if any(holders[each.uuid] > 1 for each in own)
        )
    unit = reading.units.get(device.id, UnitSample())
    known = (pids[lease_id] for lease_id in held if lease_id in pids)
    ours: frozenset[int] = frozenset().union(*known)
    return service.estimated(_sum_of(unit.busy or {}, service.servers - ours))


def activity_by_process(
    busy: Mapping[int, float] | None,
    pids: Mapping[str, frozenset[int]],
    service: MPSService = NO_SERVICE,
    whole: float | None = None,
) -> Activity:
    """Activity of each lease, and of all other processes, on one GPU.

    Args:
        busy: share of time each process was at work; None where the driver does not
            tell.
        pids: the processes of each lease.
        service: the MPS servers there. Where a process that is in no lease and is no
            known server works, and a lease behind a server does not, that lease may be
            what works, and is not known.
        whole: the activity of the GPU's multiprocessors, if it is known; it is divided
            as `busy` is.
    """
    if busy is None:
        return {}, None
    shares = {lease_id: _sum_of(busy, own) for lease_id, own in pids.items()}
    ours = frozenset().union(*pids.values())
    served = service.shares_of(_sum_of(busy, service.servers - ours))
    for lease_id, share in served.items():
        shares[lease_id] = shares.get(lease_id, 0.0) + share
    known_workers = ours | service.servers if served else ours
    others = _sum_of(busy, busy.keys() - known_workers)
    total = sum(shares.values()) + others
    scale = _scale(total, whole)
    if total <= 0 and whole is not None:
        others = min(1.0, whole)
    hidden = service.leases if others > 0 and not served else frozenset()
    known = {
        lease_id: share * scale
        for lease_id, share in shares.items()
        if share > 0 or lease_id not in hidden
    }
    return known, others * scale


def _sum_of(busy: Mapping[int, float], pids: Collection[int]) -> float:
    return sum(share for pid, share in busy.items() if pid in pids)


def _scale(total: float, whole: float | None) -> float:
    """What shares of time are multiplied by: processes take turns within a sample, so
    their shares may add up to more than one.
    """
    if total <= 0:
        return 1.0
    return min(1.0, total if whole is None else whole) / total


def activity_by_instance(
    device: Device,
    slices: Mapping[str, Sequence[Slice]],
    units: Mapping[str, UnitSample],
) -> Activity:
    """The same on a GPU that is cut into MIG instances, each with its activity and its
    multiprocessors.

    Compute instances of one GPU instance share one figure and cannot be distinguished;
    theirs goes to the others.
    """
    worked = _worked(device, units)
    if not worked or len(worked) < len(device.mig):
        return {}, None
    holders = _holders(slices)
    whole = {each.uuid for each in device.mig if not _shares_figure(each)}
    busy: dict[str, float] = {}
    for lease_id, held in slices.items():
        uuids = [each.uuid for each in held]
        if whole.issuperset(uuids):
            # One lease may have ended since the sample before and another begun on the
            # same instance: each is charged half of what the instance did.
            busy[lease_id] = sum(worked[uuid] / holders[uuid] for uuid in uuids)
    return busy, max(0.0, sum(worked.values()) - sum(busy.values()))


def _holders(slices: Mapping[str, Sequence[Slice]]) -> Counter[str]:
    """How many leases held each instance since the sample before."""
    return Counter(each.uuid for held in slices.values() for each in held)


def _worked(device: Device, units: Mapping[str, UnitSample]) -> dict[str, float]:
    """The share of the GPU's multiprocessors that worked in each instance, where it is
    known.
    """
    total = sum(instance.multiprocessors for instance in device.mig)
    worked: dict[str, float] = {}
    for instance in device.mig:
        activity = units.get(instance.uuid, UnitSample()).activity
        if total and activity is not None:
            share = instance.multiprocessors / total
            worked[instance.uuid] = min(1.0, activity) * share
    return worked


def _shares_figure(instance: MIGInstance) -> bool:
    return 0 < instance.compute_slices < instance.gpu_slices
