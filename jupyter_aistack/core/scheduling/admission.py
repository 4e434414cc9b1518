"""What is refused at once: what could never be granted, and what its user may not ask
for now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.ceiling import below_guarantee
from jupyter_aistack.core.model.device import DeviceKind, Inventory
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.placement.sizing import share_of
from jupyter_aistack.exceptions import (
    QueueClosed,
    QuotaExceeded,
    UnknownQueue,
    error_from_dict,
)

from .cycle import plan
from .fair_share import FairShare, QuotaCheck


def problems(policy: Policy, inventory: Inventory) -> Iterator[str]:
    """What a policy promises that this host cannot keep, one sentence each."""
    gpus = inventory.of_kind(DeviceKind.GPU)
    count = len(gpus) or len(inventory.devices)
    noun = "device" if count == 1 else "devices"
    have = f"this host has {count} {noun}"
    above = [queue for queue in policy.queues if queue.quota > count]
    for queue in above:
        yield f"queues: {queue.name!r}: quota is {queue.quota} devices, and {have}"

    quotas = [queue.quota for queue in policy.queues]
    owed = sum(quotas, Fraction(0))
    if owed > count and not above:
        yield f"queues: the quotas together are {owed} devices, and {have}"


def queue_for(policy: Policy, name: str, user: str, groups: frozenset[str]) -> Queue:
    """The queue of that name, or with no name the user's own.

    Raises:
        UnknownQueue: there is none of that name.
        QueueClosed: it takes no requests, or none of this user.
    """
    queue = policy.queue(name) if name else policy.queue_for(user, groups)
    if queue is None:
        names = ", ".join(known.name for known in policy.queues)
        if name:
            why = f"queue: there is no queue {name!r}; there is {names}"
            raise UnknownQueue(why, field="queue")
        why = f"queue: no queue takes requests of {user}; there is {names}"
        raise QueueClosed(why, field="queue")
    if not queue.is_open:
        why = f"queue: {queue.name} takes no requests now"
        raise QueueClosed(why, field="queue")
    if not queue.admits(user, groups):
        members = ", ".join(sorted(queue.members))
        why = f"queue: {queue.name} is for {members}, not for {user}"
        raise QueueClosed(why, field="queue")
    return queue


def admit(
    request: Request,
    snapshot: Snapshot,
    now: float,
    *,
    cache: PlacementCache | None = None,
) -> None:
    """Let `request`, which is not in the snapshot yet, in.

    Raises:
        InvalidRequest: its ceiling is below what it is guaranteed on this host.
        UnknownProfile, Unsatisfiable: an idle host could not hold it either.
        QuotaExceeded: the limits of its queue or its user do not allow it, now or ever.
    """
    patient = replace(request, patience_seconds=None)
    idle = Snapshot(
        inventory=snapshot.inventory, requests=(patient,), policy=snapshot.policy
    )
    _check_ceiling(request, snapshot.inventory)
    # What an idle host would not grant either, no state of this host ever will.
    for rejected in plan(idle, now, ttl_seconds=0.0, cache=cache).rejections():
        field = "queue" if rejected.code == QuotaExceeded.__name__ else "spec"
        error = {
            "code": rejected.code,
            "message": f"{field}: {rejected.reason}",
            "facts": {"field": field},
        }
        raise error_from_dict(error)

    limit = _check_user(request, snapshot, now) if snapshot.policy.limits else None
    if limit is not None:
        raise QuotaExceeded(limit.reason, frees_at=limit.frees_at)


def _check_ceiling(request: Request, inventory: Inventory) -> None:
    """Refuse a ceiling that no device of this host could have above the guarantee."""
    ceiling = request.up_to
    if ceiling is None:
        return
    wanted = request.spec.target or DeviceKind.GPU
    devices = inventory.of_kind(wanted) or inventory.devices
    guarantees = [share_of(request.spec, device) for device in devices]
    least = min(guarantees, default=ceiling)
    if ceiling < least <= 1:
        raise below_guarantee(ceiling, request.spec, least)


def _check_user(request: Request, snapshot: Snapshot, now: float) -> QuotaCheck | None:
    """What the limits of its user say against one request more; None for nothing."""
    user = request.holder.user
    limits = snapshot.policy.limits_of(user)
    if limits.queued is not None:
        queued = sum(waiting.holder.user == user for waiting in snapshot.requests)
        queued += snapshot.queued_elsewhere.get(user, 0)
        if queued >= limits.queued:
            reason = f"{user} has {limits.queued} requests waiting, as many as a user may have; withdraw one or wait"
            return QuotaCheck(reason=reason)
    if limits.hours_per_week is None:
        return None
    held = [lease for lease in snapshot.leases if lease.is_live]
    fair_share = FairShare(
        snapshot.policy,
        snapshot.inventory,
        held,
        snapshot.accounts,
        (),
        now,
        snapshot.elsewhere,
    )
    return fair_share.check_week(user)
