"""Whose lease is asked back when somebody who goes first finds no room: the least
disruptive choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import Capacity

from .fair_share import FairShare


def preemption(
    request: Request,
    size: Fraction,
    room: Capacity,
    leases: Iterable[Lease],
    standing: FairShare,
) -> tuple[Lease, ...]:
    """The preemptible leases that must go so that `request` fits; none when that cannot
    be had.

    Never one whose queue is within its quota, that began less than the minimum runtime
    ago, or whose queue goes before the request's, unless the request's queue is owed
    what it asks. A preemptible request preempts nobody. Fewest leases first, then those
    not in use, then those that have run the shortest and so lose the least.
    """
    if request.preemptible or request.spec.unit is Unit.PROFILE:
        return ()
    candidates = [
        lease for lease in leases if may_preempt(request, size, lease, standing)
    ]
    if not candidates:
        return ()
    choices = []
    for sizes in room.needs(request.spec, request.holder.host).values():
        costs = sorted(
            (cost, device_id)
            for device_id, share in sizes.items()
            if (cost := _cost(device_id, share, room, candidates, standing)) is not None
        )[: room.count(request.spec)]
        if len(costs) == room.count(request.spec):
            choices.append(
                (
                    sum(cost for cost, _ in costs),
                    {device_id: sizes[device_id] for _, device_id in costs},
                )
            )
    if not choices:
        return ()
    shares = min(choices, key=lambda choice: (choice[0], sorted(choice[1])))[1]
    victims = {
        lease.id: lease
        for d, share in shares.items()
        for lease in _victims(d, share, room, candidates, standing)
    }
    return tuple(victims.values()) if _within_quotas(victims.values(), standing) else ()


def may_preempt(
    request: Request, size: Fraction, lease: Lease, standing: FairShare
) -> bool:
    """Whether a lease could be asked back for a request that would hold `size`
    devices.
    """
    if (
        not lease.preemptible
        or lease.notice is not None
        or lease.state is LeaseState.RELEASING
        or lease.is_away
    ):
        return False  # one that is suspended has given its room already
    if standing.now - lease.granted_at <= standing.policy.min_runtime_seconds:
        return False
    if standing.staying(lease.queue) - equivalents(lease.slices) < standing.quota(
        lease.queue
    ):
        return False
    mine = standing.queues.get(request.queue)
    theirs = standing.queues.get(lease.queue)
    goes_first = mine is not None and (
        theirs is None or theirs.priority <= mine.priority
    )
    return goes_first or standing.is_deserved(request.queue, size)


def _within_quotas(victims: Iterable[Lease], standing: FairShare) -> bool:
    """Whether all of them together leave their queues what they are owed."""
    lost: dict[str, Fraction] = {}
    for lease in victims:
        lost[lease.queue] = lost.get(lease.queue, Fraction(0)) + equivalents(
            lease.slices
        )
    return all(
        standing.staying(queue) - size >= standing.quota(queue)
        for queue, size in lost.items()
    )


def _cost(
    device_id: str,
    share: Fraction,
    room: Capacity,
    candidates: Sequence[Lease],
    standing: FairShare,
) -> float | None:
    """How disruptive it is to make room on a device; None when all candidates together
    are not enough.
    """
    if not room.device(device_id).is_healthy:
        return None
    victims = _victims(device_id, share, room, candidates, standing)
    if not room.is_free(device_id, share) and not victims:
        return None
    return sum(_disruption(lease, standing.now) for lease in victims)


def _victims(
    device_id: str,
    share: Fraction,
    room: Capacity,
    candidates: Sequence[Lease],
    standing: FairShare,
) -> list[Lease]:
    free = room.share(device_id)
    memory = room.memory(device_id)
    needed = int(share * room.device(device_id).memory_bytes)
    here = [
        lease
        for lease in candidates
        if any(piece.device_id == device_id for piece in lease.slices)
    ]
    chosen: list[Lease] = []
    for lease in sorted(
        here, key=lambda lease: (_disruption(lease, standing.now), lease.id)
    ):
        if free >= share and memory >= needed:
            break
        chosen.append(lease)
        for piece in lease.slices:
            if piece.device_id == device_id:
                free = free + piece.fraction
                memory = memory + piece.memory_bytes
    return chosen if free >= share and memory >= needed else []


def _disruption(lease: Lease, now: float) -> float:
    """Each lease counts one, somewhat less the longer nobody has used it, somewhat more
    the longer it has run.
    """
    idle = 0.0 if lease.active_at is None else max(0.0, now - lease.active_at)
    run = max(0.0, now - lease.granted_at)
    return 1.0 - 0.4 * idle / (idle + 600.0) + 0.1 * run / (run + 86400.0)
