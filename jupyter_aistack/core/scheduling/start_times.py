"""When a request can start, as far as it is known when held slices are given back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.placement.device_capacity import CLOSE, as_float, bytes_of
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.sizing import host_share

from .capacity_holds import CapacityHold, Shares
from .lease_ends import ends_at


@dataclass(frozen=True, kw_only=True)
class Start:
    """When a request can start, and what it takes then.

    Attributes:
        at: seconds since the epoch; infinity when it is not known.
        shares: the share of each device that it will take.
    """

    at: float = math.inf
    shares: Shares = field(default_factory=dict)


class ReleaseTimes:
    """When held slices are known to be given back, device by device.

    Args:
        leases: what is held; `add` more as they are expected.

    Attributes:
        leases: all of them.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.leases: list[Lease] = []
        self._by_device: dict[str, list[tuple[float, float, int]]] = {}
        for lease in leases:
            self.add(lease)

    def add(self, lease: Lease) -> None:
        """One more lease will end."""
        self.leases.append(lease)
        end = ends_at(lease)
        if math.isfinite(end):
            for slice_ in lease.occupied:
                self.free(slice_, end)

    def free(self, slice_: Slice, end: float) -> None:
        """A slice that is held will be free at `end`."""
        release = (end, as_float(slice_.fraction), slice_.memory_bytes)
        self._by_device.setdefault(slice_.device_id, []).append(release)

    def copy(self) -> ReleaseTimes:
        """An independent copy in the same state."""
        twin = ReleaseTimes()
        twin.leases = self.leases[:]
        twin._by_device = {
            device_id: ends[:] for device_id, ends in self._by_device.items()
        }
        return twin

    def release_to(self, device_id: str, profile: str, end: float) -> None:
        """The MIG instance of a device that is free at `end` is another request's from
        then on.
        """
        for lease in self.leases:
            if ends_at(lease) <= end and _has_instance(lease, device_id, profile):
                self.leases.remove(lease)
                return

    def start_on(
        self,
        device_id: str,
        share: Fraction,
        capacity: Capacity,
        now: float,
        user: str = "",
    ) -> float:
        """When `share` of a device will be free for a user as far as is known; infinity
        when it is not.
        """
        if capacity.is_free(device_id, share, user):
            return now
        device = capacity.device(device_id)
        alone = self._left_by_others(device_id, capacity, user)
        opens_at = max(now, alone, device.schedulable_at)
        if math.isinf(opens_at) or capacity.holds(device_id, share):
            return opens_at
        free = capacity.approx(device_id)
        memory = capacity.memory(device_id)
        wanted = as_float(share) - CLOSE
        needed = bytes_of(share, device)
        for end, fraction, memory_bytes in sorted(self._by_device.get(device_id, ())):
            free = free + fraction
            memory = memory + memory_bytes
            if free >= wanted and memory >= needed:
                return max(opens_at, end)
        return math.inf

    def _left_by_others(self, device_id: str, capacity: Capacity, user: str) -> float:
        """When other users have left a device that is one user's at a time."""
        others = capacity.tenants.others(device_id, user)
        if not others:
            return -math.inf
        ends = [
            ends_at(lease)
            for lease in self.leases
            if lease.holder.user != user and _is_on(lease, device_id)
        ]
        # What is held for others, and is no lease yet, has no end that is known.
        return max(ends) if len(ends) >= others else math.inf


def _is_on(lease: Lease, device_id: str) -> bool:
    return any(slice_.device_id == device_id for slice_ in lease.slices)


def _has_instance(lease: Lease, device_id: str, profile: str) -> bool:
    return any(
        slice_.device_id == device_id and slice_.profile == profile
        for slice_ in lease.slices
    )


def earliest_start(
    spec: Spec,
    capacity: Capacity,
    ends: ReleaseTimes,
    now: float,
    *,
    host: str = "",
    user: str = "",
) -> Start:
    """When there will be capacity for `spec` as far as the ends of leases are known,
    and on which devices; of what is equally near, the devices with most free.
    """
    if spec.unit is Unit.PROFILE:
        return _start_of_profile(spec, ends.leases, capacity, now)
    best = Start()
    count = capacity.count(spec)
    for name, sizes in capacity.needs(spec, host).items():
        if len(sizes) < count:
            continue
        starts = sorted(
            (ends.start_on(i, size, capacity, now, user), -capacity.approx(i), i)
            for i, size in sizes.items()
        )[:count]
        beside = _host_shares(spec, capacity, name)
        times = [at for at, _, _ in starts]
        times += [ends.start_on(i, size, capacity, now) for i, size in beside.items()]
        is_first = not best.shares
        if is_first or max(times) < best.at:
            own = {device_id: sizes[device_id] for _, _, device_id in starts}
            shares = {**own, **beside}
            best = Start(at=max(times), shares=shares)
    return best


def earliest_start_beside(
    holds: Sequence[CapacityHold],
    spec: Spec,
    capacity: Capacity,
    ends: ReleaseTimes,
    now: float,
    *,
    host: str = "",
    user: str = "",
) -> Start:
    """`earliest_start` for a request that must do without what these hold, until they
    end.
    """
    if holds:
        capacity = capacity.copy()
        ends = ends.copy()
    for hold in holds:
        for device_id, share in hold.shares.items():
            capacity.hold(device_id, share, hold.user)
            ends.free(capacity.placeholder(device_id, share), hold.ends_at)
    return earliest_start(spec, capacity, ends, now, host=host, user=user)


def _start_of_profile(
    spec: Spec, leases: Sequence[Lease], capacity: Capacity, now: float
) -> Start:
    """When the first instance of a profile is given back."""
    known = {device.id for device in capacity.inventory.devices}
    instances = [
        (
            max(ends_at(lease), capacity.device(slice_.device_id).schedulable_at),
            slice_.device_id,
            slice_.fraction,
        )
        for lease in leases
        for slice_ in lease.slices
        if slice_.profile == spec.profile and slice_.device_id in known
    ]
    if not instances:
        return Start()
    end, device_id, fraction = min(instances)
    return Start(at=max(now, end), shares={device_id: fraction})


def _host_shares(spec: Spec, capacity: Capacity, host: str) -> dict[str, Fraction]:
    """The share of a host's CPU that goes with a device."""
    if not spec.needs_host:
        return {}
    for device in capacity.inventory.devices:
        if device.host == host and device.kind is DeviceKind.CPU:
            return {device.id: host_share(spec, device)}
    return {}
