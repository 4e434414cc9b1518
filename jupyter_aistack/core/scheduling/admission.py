"""What is refused at the door: what could never be granted, and what its user may not
ask for now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Inventory
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import (
    QueueClosed,
    QuotaExceeded,
    UnknownQueue,
    error_from_dict,
)

from .cycle import plan
from .fair_share import FairShare, QuotaCheck


def queue_for(policy: Policy, name: str, user: str, groups: frozenset[str]) -> Queue:
    """The queue of that name, or with no name the user's own.

    Raises:
        UnknownQueue: there is none of that name.
        QueueClosed: it takes no requests, or none of this user.
    """
    queue = policy.queue(name) if name else policy.queue_for(user, groups)
    names = ", ".join(known.name for known in policy.queues)
    if queue is None and name:
        raise UnknownQueue(
            f"queue: there is no queue {name!r}; there is {names}", field="queue"
        )
    if queue is None:
        raise QueueClosed(
            f"queue: no queue takes requests of {user}; there is {names}", field="queue"
        )
    if not queue.is_open:
        raise QueueClosed(f"queue: {queue.name} takes no requests now", field="queue")
    if not queue.admits(user, groups):
        members = ", ".join(sorted(queue.members))
        raise QueueClosed(
            f"queue: {queue.name} is for {members}, not for {user}", field="queue"
        )
    return queue


def admit(request: Request, snapshot: Snapshot, now: float) -> None:
    """Let `request`, which is not in the snapshot yet, in.

    Raises:
        UnknownProfile, Unsatisfiable: an idle host could not hold it either.
        QuotaExceeded: the limits of its queue or its user do not allow it, now or ever.
    """
    patient = replace(request, patience_seconds=None)
    idle = Snapshot(
        inventory=snapshot.inventory, requests=(patient,), policy=snapshot.policy
    )
    for rejected in plan(idle, now, ttl_seconds=0.0).rejections():
        field = "queue" if rejected.code == QuotaExceeded.__name__ else "spec"
        facts = {"field": field}
        raise error_from_dict(
            {
                "code": rejected.code,
                "message": f"{field}: {rejected.reason}",
                "facts": facts,
            }
        )
    limit = _limit(request, snapshot, now) if snapshot.policy.limits else None
    if limit is not None:
        raise QuotaExceeded(limit.reason, frees_at=limit.frees_at)


def _limit(request: Request, snapshot: Snapshot, now: float) -> QuotaCheck | None:
    user = request.holder.user
    limits = snapshot.policy.limits_of(user)
    if (
        limits.queued is not None
        and sum(r.holder.user == user for r in snapshot.requests) >= limits.queued
    ):
        reason = f"{user} has {limits.queued} requests waiting, as many as a user may have; take one back or wait"
        return QuotaCheck(reason=reason)
    if limits.hours_per_week is None:
        return None
    held = [lease for lease in snapshot.leases if lease.is_live]
    return FairShare(
        snapshot.policy, snapshot.inventory, held, snapshot.accounts, (), now
    ).week_limit(user)


def problems(policy: Policy, inventory: Inventory) -> Iterator[str]:
    """What a policy promises that this host cannot keep, one sentence each."""
    has = len(inventory.of_kind(DeviceKind.GPU)) or len(inventory.devices)
    noun = "device" if has == 1 else "devices"
    owed = sum((queue.quota for queue in policy.queues), Fraction(0))
    above = [queue for queue in policy.queues if queue.quota > has]
    for queue in above:
        yield f"queues: {queue.name!r}: quota is {queue.quota} devices, and this host has {has} {noun}"
    if owed > has and not above:
        yield f"queues: the quotas together are {owed} devices, and this host has {has} {noun}"
