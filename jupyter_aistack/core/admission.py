"""What is refused at the door, because waiting would not help this week or would only make the queue longer."""

from __future__ import annotations

from .plan import Snapshot
from .request import Request
from .standing import Limit, Standing


def admission(request: Request, snapshot: Snapshot, now: float) -> Limit | None:
    """Why `request`, which is not in the snapshot yet, is not let in; None when it is."""
    user = request.holder.user
    limits = snapshot.policy.limits_of(user)
    if limits.queued is not None and sum(r.holder.user == user for r in snapshot.requests) >= limits.queued:
        reason = f"{user} has {limits.queued} requests waiting, as many as a user may have; take one back or wait"
        return Limit(reason=reason)
    if limits.hours_per_week is None:
        return None
    held = [lease for lease in snapshot.leases if lease.is_live]
    return Standing(snapshot.policy, snapshot.inventory, held, snapshot.accounts, (), now).week_limit(user)
