"""What leases with a ceiling may use, as a part of a plan: lowered before it grants, and
raised after it, all in one transaction. So a grant never waits for a ceiling.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.enforcement.effective_limits import device_limits
from jupyter_aistack.core.model.device import Device, Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.limit import Limits, SliceLimit
from jupyter_aistack.core.model.plan import (
    Action,
    Grant,
    Plan,
    SetLimits,
    Snapshot,
    TransferAction,
    TransferDirection,
    grant_to_lease,
)
from jupyter_aistack.core.placement.device_capacity import bytes_of

Wanted = Mapping[str, Mapping[str, SliceLimit]]
"""Limits by the id of the lease, and of the device."""


def with_limits(
    todo: Plan,
    snapshot: Snapshot,
    now: float,
    elsewhere: frozenset[str] = frozenset(),
) -> Plan:
    """The plan, with the limits that follow from it.

    What cannot be seen changes nothing: limits on a device that is closed, or does not
    answer, stay as they are. Where others see the host otherwise (containers, launchers
    with fewer cores), a limit is theirs to set; it is lowered for what the plan grants,
    and never raised.

    Args:
        elsewhere: ids of leases that others look after, who may see it otherwise.
    """
    grants = [action for action in todo.actions if isinstance(action, Grant)]
    has_ceiling = any(lease.up_to for lease in snapshot.leases)
    if not has_ceiling and not any(grant.request.up_to for grant in grants):
        return todo

    ended = todo.ended()
    alive = (lease for lease in snapshot.leases if lease.is_live)
    live = [lease for lease in alive if lease.id not in ended]
    new = _granted(grants, live, now)
    together = [*live, *new]
    wanted = _wanted(snapshot, together, _returning(todo))
    lowered, raised = _changes(live, wanted, now)
    foreign = elsewhere | _cut_otherwise(snapshot, live)
    if foreign:
        granted = {slice_.device_id for lease in new for slice_ in lease.slices}
        lowered = [
            action
            for action in lowered
            if action.lease_id not in foreign or _concerns(action, granted)
        ]
        raised = [action for action in raised if action.lease_id not in foreign]
    planned = [_with_own_limits(action, wanted) for action in todo.actions]
    actions = (*lowered, *planned, *raised)
    return replace(todo, actions=actions)


def _cut_otherwise(snapshot: Snapshot, leases: Iterable[Lease]) -> frozenset[str]:
    """Ids of the leases that were cut from a device as somebody else sees it: with other
    cores, or other memory.
    """
    devices = {device.id: device for device in snapshot.inventory.devices}
    otherwise = set()
    for lease in leases:
        for slice_ in lease.elastic_slices:
            device = devices.get(slice_.device_id)
            if device is not None and not _is_cut_from(slice_, device):
                otherwise.add(lease.id)
    return frozenset(otherwise)


def _is_cut_from(slice_: Slice, device: Device) -> bool:
    has_its_cores = set(slice_.cores) <= set(device.cores)
    return has_its_cores and slice_.memory_bytes == bytes_of(slice_.fraction, device)


def _concerns(action: SetLimits, devices: Collection[str]) -> bool:
    """Whether it changes a limit on one of the devices."""
    return any(limit.device_id in devices for limit in action.limits)


def _granted(grants: Iterable[Grant], live: Iterable[Lease], now: float) -> list[Lease]:
    """What the grants will be, by the id of their requests."""
    # Their tokens will be higher than all there are.
    token = max((lease.token for lease in live), default=0)
    leases = []
    for grant in grants:
        token += 1
        lease = grant_to_lease(grant, grant.request.id, token, now)
        leases.append(lease)
    return leases


def _changes(
    live: Iterable[Lease], wanted: Wanted, now: float
) -> tuple[list[SetLimits], list[SetLimits]]:
    """What is lowered, and what is raised."""
    lowered: list[SetLimits] = []
    raised: list[SetLimits] = []
    for lease in live:
        before = lease.limits
        own = wanted.get(lease.id, {})
        limits = _merged(before, own, now)
        if limits == before:
            continue
        action = SetLimits(
            lease_id=lease.id,
            token=lease.token,
            limits=limits,
        )
        if is_lowered(before, limits):
            lowered.append(action)
        else:
            raised.append(action)
    return lowered, raised


def _returning(todo: Plan) -> frozenset[str]:
    """Ids of the suspended leases that the plan has come back."""
    returning = set()
    for action in todo.actions:
        if not isinstance(action, TransferAction):
            continue
        if action.direction is TransferDirection.RESUME:
            returning.add(action.lease_id)
    return frozenset(returning)


def _wanted(
    snapshot: Snapshot, leases: Sequence[Lease], returning: frozenset[str]
) -> Wanted:
    """What each lease may use, on the devices that can be seen."""
    concerned = set()
    for lease in leases:
        for slice_ in lease.elastic_slices:
            device_id = slice_.device_id
            concerned.add(device_id)

    wanted: dict[str, dict[str, SliceLimit]] = {}
    for device in snapshot.inventory.devices:
        if not device.is_healthy:
            continue
        if device.id not in concerned:
            continue
        limits = device_limits(device, leases, returning)
        for lease_id, limit in limits.items():
            of_lease = wanted.setdefault(lease_id, {})
            of_lease[device.id] = limit
    return wanted


def _merged(before: Limits, wanted: Mapping[str, SliceLimit], now: float) -> Limits:
    """The limits of a lease: those that are wanted, and those of before on its other
    devices.
    """
    limits = _by_device(before)
    for device_id, limit in wanted.items():
        known = limits.get(device_id)
        if known is not None and limit.same_amounts(known):
            continue
        limits[device_id] = limit.after(known, now)
    return tuple(limits.values())


def _by_device(limits: Limits) -> dict[str, SliceLimit]:
    return {limit.device_id: limit for limit in limits}


def is_lowered(before: Limits, after: Limits) -> bool:
    """Whether any of the limits is lower than it was."""
    known = _by_device(before)
    for limit in after:
        old = known.get(limit.device_id, limit)
        if limit.fraction < old.fraction:
            return True
        if limit.memory_bytes < old.memory_bytes:
            return True
    return False


def _with_own_limits(action: Action, wanted: Wanted) -> Action:
    """A grant with what its lease may use at once; any other action as it is."""
    if not isinstance(action, Grant):
        return action
    own = wanted.get(action.request.id, {})
    return replace(action, limits=tuple(own.values()))
