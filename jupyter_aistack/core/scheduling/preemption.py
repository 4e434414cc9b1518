"""Which leases are preempted when a request with higher priority does not fit: the
least disruptive choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import Capacity

from .fair_share import FairShare
from .idle import idle_seconds

IDLE_WEIGHT = 0.4
IDLE_SECONDS = 600.0
RUN_WEIGHT = 0.1
RUN_SECONDS = 86400.0
"""A lease counts up to `IDLE_WEIGHT` less the longer it has been idle, half of that
after `IDLE_SECONDS`, and likewise more the longer it has run."""


@dataclass(frozen=True, kw_only=True)
class _HostChoice:
    """The devices of one host that cost least to free, and what they cost together."""

    cost: float
    shares: Mapping[str, Fraction]


def choose_preempted(
    request: Request,
    size: Fraction,
    capacity: Capacity,
    leases: Iterable[Lease],
    fair_share: FairShare,
) -> tuple[Lease, ...]:
    """The preemptible leases that must end so that `request` fits; none when that
    cannot be had.

    Never a lease whose queue is within its quota, that began less than the minimum
    runtime ago, or whose queue has higher priority than the request's, unless the
    request's queue is owed what it asks. A preemptible request preempts nothing. Fewest
    leases first, then those not in use, then those that have run the shortest and so
    lose the least.
    """
    if request.preemptible or request.spec.unit is Unit.PROFILE:
        return ()
    candidates = [
        lease for lease in leases if may_preempt(request, size, lease, fair_share)
    ]
    if not candidates:
        return ()

    choices = [
        choice
        for sizes in capacity.needs(request.spec, request.holder.host).values()
        if (choice := _choose_on_host(request, sizes, capacity, candidates, fair_share))
    ]
    if not choices:
        return ()
    best = min(choices, key=lambda choice: (choice.cost, sorted(choice.shares)))
    victims = {
        lease.id: lease
        for device_id, share in best.shares.items()
        for lease in _victims(
            request, device_id, share, capacity, candidates, fair_share.now
        )
    }
    # Each alone left its queue what it is owed; all of them together may not.
    if _spare_quotas(victims, fair_share):
        return tuple(victims.values())
    return ()


def _choose_on_host(
    request: Request,
    sizes: Mapping[str, Fraction],
    capacity: Capacity,
    candidates: Sequence[Lease],
    fair_share: FairShare,
) -> _HostChoice | None:
    costs = []
    for device_id, share in sizes.items():
        cost = _cost(request, device_id, share, capacity, candidates, fair_share.now)
        if cost is not None:
            costs.append((cost, device_id))
    count = capacity.count(request.spec)
    cheapest = sorted(costs)[:count]
    if len(cheapest) < count:
        return None
    return _HostChoice(
        cost=sum(cost for cost, _ in cheapest),
        shares={device_id: sizes[device_id] for _, device_id in cheapest},
    )


def may_preempt(
    request: Request, size: Fraction, lease: Lease, fair_share: FairShare
) -> bool:
    """Whether a lease could be preempted for a request that would hold `size`
    devices.
    """
    if not _is_preemptible(lease):
        return False
    policy = fair_share.policy
    if fair_share.now - lease.granted_at <= policy.min_runtime_seconds:
        return False
    left = fair_share.remaining(lease.queue) - equivalents(lease.slices)
    if left < fair_share.quota(lease.queue):
        return False
    if _has_priority_over(lease.queue, request.queue, fair_share):
        return fair_share.is_deserved(request.queue, size)
    return True


def _is_preemptible(lease: Lease) -> bool:
    if not lease.preemptible or lease.notice is not None:
        return False
    # One that is suspended has given its capacity already.
    return lease.state is not LeaseState.RELEASING and not lease.is_away


def _has_priority_over(first: str, second: str, fair_share: FairShare) -> bool:
    """Whether the queue `first` has higher priority than `second`. A queue that is not
    configured any more has the lowest.
    """
    theirs = fair_share.queues.get(first)
    mine = fair_share.queues.get(second)
    if mine is None:
        return True
    return theirs is not None and theirs.priority > mine.priority


def _spare_quotas(victims: Mapping[str, Lease], fair_share: FairShare) -> bool:
    """Whether all of them together leave their queues what they are owed."""
    lost: dict[str, Fraction] = {}
    for lease in victims.values():
        size = equivalents(lease.slices)
        lost[lease.queue] = lost.get(lease.queue, Fraction(0)) + size
    return all(
        fair_share.remaining(queue) - size >= fair_share.quota(queue)
        for queue, size in lost.items()
    )


def _cost(
    request: Request,
    device_id: str,
    share: Fraction,
    capacity: Capacity,
    candidates: Sequence[Lease],
    now: float,
) -> float | None:
    """How disruptive it is to free a share of a device; None when all candidates
    together are not enough.
    """
    if not capacity.device(device_id).is_schedulable:
        return None
    user = request.holder.user
    victims = _victims(request, device_id, share, capacity, candidates, now)
    if not victims and not capacity.is_free(device_id, share, user):
        return None
    return sum(_disruption(lease, now) for lease in victims)


def _victims(
    request: Request,
    device_id: str,
    share: Fraction,
    capacity: Capacity,
    candidates: Sequence[Lease],
    now: float,
) -> list[Lease]:
    """The least disruptive leases of a device that must end so that a share of it is
    free; none when it is free, or all of them are not enough. Where a GPU is one user's
    at a time, all leases of other users must end.
    """
    user = request.holder.user
    others = capacity.tenants.others(device_id, user)
    free = capacity.share(device_id)
    memory = capacity.memory(device_id)
    needed = int(share * capacity.device(device_id).memory_bytes)
    here = [lease for lease in candidates if _is_on(lease, device_id)]
    here.sort(key=lambda lease: (_disruption(lease, now), lease.id))
    if others:
        # First those that must end whatever is free.
        here.sort(key=lambda lease: lease.holder.user == user)
    chosen: list[Lease] = []
    for lease in here:
        if free >= share and memory >= needed and not others:
            break
        others = max(0, others - (lease.holder.user != user))
        chosen.append(lease)
        for slice_ in lease.slices:
            if slice_.device_id == device_id:
                free = free + slice_.fraction
                memory = memory + slice_.memory_bytes
    if free >= share and memory >= needed and not others:
        return chosen
    return []


def _is_on(lease: Lease, device_id: str) -> bool:
    return any(slice_.device_id == device_id for slice_ in lease.slices)


def _disruption(lease: Lease, now: float) -> float:
    """Each lease counts 1, somewhat less the longer it has been idle, somewhat more the
    longer it has run.
    """
    idle = idle_seconds(lease, now) or 0.0
    run = max(0.0, now - lease.granted_at)
    less = IDLE_WEIGHT * idle / (idle + IDLE_SECONDS)
    more = RUN_WEIGHT * run / (run + RUN_SECONDS)
    return 1.0 - less + more
