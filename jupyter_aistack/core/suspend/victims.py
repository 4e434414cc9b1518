"""Which idle leases are suspended so that a request fits: the fewest, then those that
have been idle the longest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.device_capacity import bytes_of
from jupyter_aistack.core.placement.placement import Capacity

from .model import SuspendCandidate

Slices = Mapping[str, Sequence[Slice]]
Cost = tuple[int, bool, float]
"""How many must go, whether they must wait for a transfer, and when the last of them
was used: the least is the best."""


@dataclass(frozen=True, kw_only=True)
class _DeviceChoice:
    """The leases that would leave one device."""

    device_id: str
    victims: Sequence[SuspendCandidate]
    must_wait: bool

    @property
    def cost(self) -> tuple[Cost, str]:
        last_used = max((victim.active_at for victim in self.victims), default=0.0)
        return (len(self.victims), self.must_wait, last_used), self.device_id


def choose_victims(
    request: Request,
    capacity: Capacity,
    idle: Sequence[SuspendCandidate],
    slices: Slices,
    moving: Collection[str] = (),
) -> tuple[SuspendCandidate, ...]:
    """The idle leases that must be suspended so that `request` fits, in the order they
    should go; none when that is in vain.

    Args:
        capacity: what is free, or will be.
        idle: those that could be suspended, least recently used first.
        slices: what each of them holds, by lease.
        moving: devices on which a transfer runs: they come after devices where a
            transfer can begin at once.
    """
    if not idle or request.spec.unit is Unit.PROFILE:
        return ()
    choices = [
        choice
        for sizes in capacity.needs(request.spec, request.holder.host).values()
        if (choice := _choose_on_host(request, capacity, sizes, idle, slices, moving))
    ]
    if not choices:
        return ()
    chosen = min(choices, key=_host_cost)
    leaving = {victim.lease_id for device in chosen for victim in device.victims}
    return tuple(candidate for candidate in idle if candidate.lease_id in leaving)


def _choose_on_host(
    request: Request,
    capacity: Capacity,
    sizes: Mapping[str, Fraction],
    idle: Sequence[SuspendCandidate],
    slices: Slices,
    moving: Collection[str],
) -> list[_DeviceChoice]:
    """The cheapest devices of one host that a request needs; empty when there are too
    few.
    """
    count = capacity.count(request.spec)
    by_device = _by_device(idle)
    able = []
    for device_id, share in sizes.items():
        if capacity.tenants.others(device_id, request.holder.user):
            continue  # it stays theirs while they are suspended
        victims = _victims_on(device_id, share, capacity, by_device[device_id], slices)
        if victims is not None:
            must_wait = device_id in moving
            choice = _DeviceChoice(
                device_id=device_id, victims=victims, must_wait=must_wait
            )
            able.append(choice)
    cheapest = sorted(able, key=lambda choice: choice.cost)[:count]
    return cheapest if len(cheapest) == count else []


def _host_cost(chosen: Sequence[_DeviceChoice]) -> tuple[int, tuple[Cost, str]]:
    number = sum(len(choice.victims) for choice in chosen)
    return number, max(choice.cost for choice in chosen)


def victims_below_limits(
    request: Request,
    excess: tuple[Fraction, Fraction],
    leaving: Iterable[Lease],
    idle: Iterable[Lease],
) -> list[Lease]:
    """The idle leases of a request's queue, or user, that must be suspended so that it
    stays within limits.

    Args:
        excess: by how many devices it would bring its queue, and its user, above what
            they may hold.
        leaving: leases that are being suspended already.
        idle: those that could be suspended, least recently used first.

    Returns:
        None of them when those being suspended are enough, or when all of them together
        are not.
    """
    by_queue, by_user = excess
    going = [(lease, False) for lease in leaving]
    chosen: list[Lease] = []
    for lease, is_new in [*going, *((lease, True) for lease in idle)]:
        is_of_queue = lease.queue == request.queue
        is_of_user = lease.holder.user == request.holder.user
        helps_queue = is_of_queue and by_queue > 0
        helps_user = is_of_user and by_user > 0
        if not helps_queue and not helps_user:
            continue

        size = equivalents(lease.occupied)
        by_queue -= size * is_of_queue
        by_user -= size * is_of_user
        if is_new:
            chosen.append(lease)
    return chosen if by_queue <= 0 and by_user <= 0 else []


def _by_device(
    candidates: Iterable[SuspendCandidate],
) -> defaultdict[str, list[SuspendCandidate]]:
    by_device: defaultdict[str, list[SuspendCandidate]] = defaultdict(list)
    for candidate in candidates:
        for device_id in candidate.devices:
            by_device[device_id].append(candidate)
    return by_device


def _victims_on(
    device_id: str,
    share: Fraction,
    capacity: Capacity,
    idle: Sequence[SuspendCandidate],
    slices: Slices,
) -> list[SuspendCandidate] | None:
    """Which leases must leave a device so that `share` of it is free; None when all of
    them together are not enough.
    """
    device = capacity.device(device_id)
    if not device.is_schedulable:
        return None
    free = capacity.share(device_id)
    memory = capacity.memory(device_id)
    needed = bytes_of(share, device)
    chosen: list[SuspendCandidate] = []
    for candidate in idle:
        if free >= share and memory >= needed:
            break
        chosen.append(candidate)
        gained, gained_bytes = _held_on(device_id, slices[candidate.lease_id])
        free += gained
        memory += gained_bytes
    if free < share or memory < needed:
        return None
    return _without_needless(chosen, device_id, slices, free - share, memory - needed)


def _held_on(device_id: str, slices: Iterable[Slice]) -> tuple[Fraction, int]:
    """The share and the bytes that slices make of a device."""
    here = [slice_ for slice_ in slices if slice_.device_id == device_id]
    share = sum((slice_.fraction for slice_ in here), Fraction(0))
    return share, sum(slice_.memory_bytes for slice_ in here)


def _without_needless(
    chosen: Sequence[SuspendCandidate],
    device_id: str,
    slices: Slices,
    spare: Fraction,
    spare_bytes: int,
) -> list[SuspendCandidate]:
    """Those that must really go, given how much too much would be free; the last used
    stay first.
    """
    leaving = list(chosen)
    for candidate in reversed(chosen):
        share, size_bytes = _held_on(device_id, slices[candidate.lease_id])
        if share <= spare and size_bytes <= spare_bytes:
            spare = spare - share
            spare_bytes = spare_bytes - size_bytes
            leaving.remove(candidate)
    return leaving
