"""Who is suspended so that a request fits: the fewest idle leases, then those that have
rested the longest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import Capacity

from .model import SuspendCandidate

Slices = Mapping[str, Sequence[Slice]]


def parking(
    request: Request,
    room: Capacity,
    idle: Sequence[SuspendCandidate],
    slices: Slices,
    moving: Collection[str] = (),
) -> tuple[SuspendCandidate, ...]:
    """The idle tenants that must leave so that `request` fits, in the order they should
    go; none when that is vain.

    Args:
        room: what is free, or will be.
        idle: who could be suspended, least recently used first.
        slices: what each of them holds, by lease.
        moving: devices on which somebody moves: they come after those where one can
            begin at once.
    """
    if not idle or request.spec.unit is Unit.PROFILE:
        return ()
    count = room.count(request.spec)
    choices = []
    there = _by_device(idle)
    for sizes in room.needs(request.spec, request.holder.host).values():
        able = (
            (_leavers(d, share, room, there[d], slices), d)
            for d, share in sizes.items()
        )
        ranked = sorted(
            (*_cost(leavers, d in moving), d)
            for leavers, d in able
            if leavers is not None
        )[:count]
        if len(ranked) == count:
            choices.append(
                (
                    sum(number for number, *_ in ranked),
                    max(ranked),
                    {d: sizes[d] for *_, d in ranked},
                )
            )
    if not choices:
        return ()
    chosen = min(choices, key=lambda choice: choice[:2])[2]
    leavers = [
        _leavers(d, share, room, there[d], slices) or () for d, share in chosen.items()
    ]
    leaving = {one.lease_id for those in leavers for one in those}
    return tuple(one for one in idle if one.lease_id in leaving)


def below_limits(
    request: Request,
    excess: tuple[Fraction, Fraction],
    leaving: Iterable[Lease],
    idle: Iterable[Lease],
) -> list[Lease]:
    """The idle leases of a request's queue, or user, that must leave so that it stays
    within limits.

    Args:
        excess: by how many devices it would bring its queue, and its user, above what
            they may hold.
        leaving: who leaves already.
        idle: who could be suspended, least recently used first.

    Returns:
        Nobody when those who leave already are enough, or all of them together are not.
    """
    by_queue, by_user = excess
    chosen: list[Lease] = []
    for number, lease in enumerate([*(known := list(leaving)), *idle]):
        of_queue = lease.queue == request.queue
        of_user = lease.holder.user == request.holder.user
        if (by_queue > 0 and of_queue) or (by_user > 0 and of_user):
            size = equivalents(lease.occupied)
            by_queue = by_queue - size * of_queue
            by_user = by_user - size * of_user
            chosen += [lease] if number >= len(known) else []
    return chosen if by_queue <= 0 and by_user <= 0 else []


def _by_device(
    tenants: Iterable[SuspendCandidate],
) -> defaultdict[str, list[SuspendCandidate]]:
    found: defaultdict[str, list[SuspendCandidate]] = defaultdict(list)
    for one in tenants:
        for device in one.devices:
            found[device].append(one)
    return found


def _leavers(
    device_id: str,
    share: Fraction,
    room: Capacity,
    idle: Sequence[SuspendCandidate],
    slices: Slices,
) -> list[SuspendCandidate] | None:
    """Who must leave a device so that `share` of it is free; None when all of them
    together are not enough.
    """
    device = room.device(device_id)
    free = room.share(device_id)
    memory = room.memory(device_id)
    needed = share.numerator * device.memory_bytes // share.denominator
    chosen: list[SuspendCandidate] = []
    for one in idle if device.is_healthy else ():
        if free >= share and memory >= needed:
            break
        pieces = [
            piece for piece in slices[one.lease_id] if piece.device_id == device_id
        ]
        chosen.append(one)
        free += sum(piece.fraction for piece in pieces)
        memory += sum(piece.memory_bytes for piece in pieces)
    if not device.is_healthy or free < share or memory < needed:
        return None
    return _without_needless(chosen, device_id, slices, free - share, memory - needed)


def _without_needless(
    chosen: Sequence[SuspendCandidate],
    device_id: str,
    slices: Slices,
    free: Fraction,
    memory: int,
) -> list[SuspendCandidate]:
    """Those who must go, given what would be `free` too much: the last used stay
    first.
    """
    leaving = list(chosen)
    for one in reversed(chosen):
        pieces = [
            piece for piece in slices[one.lease_id] if piece.device_id == device_id
        ]
        less = sum(piece.fraction for piece in pieces)
        fewer = sum(piece.memory_bytes for piece in pieces)
        if less <= free and fewer <= memory:
            free = free - less
            memory = memory - fewer
            leaving.remove(one)
    return leaving


def _cost(
    leavers: Sequence[SuspendCandidate], must_wait: bool
) -> tuple[int, bool, float]:
    return len(leavers), must_wait, max((one.active_at for one in leavers), default=0.0)
