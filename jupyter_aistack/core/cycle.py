"""One turn of the broker, as a function: a snapshot in, a plan out."""

from __future__ import annotations

from collections.abc import Iterator

from .idle import NOTICED, stage, was_used_since_notice
from .lease import Lease, LeaseState, Notice, NoticeKind, Outcome
from .plan import Action, End, Notify, Plan, Snapshot, Withdraw
from .schedule import decide
from .units import format_duration


def plan(snapshot: Snapshot, now: float, *, ttl_seconds: float) -> Plan:
    """What should happen at `now`. Pure: the same snapshot gives the same plan.

    Leases past their time, without a living holder, or whose notice is over end first. Then the waiting are served as
    :mod:`.schedule` orders them.
    """
    before = tuple(_upkeep(snapshot, now))
    gone = {action.lease_id for action in before if isinstance(action, End)}
    held = [lease for lease in snapshot.leases if lease.is_live and lease.id not in gone]
    return Plan(version=snapshot.version, actions=(*before, *decide(snapshot, held, now, ttl_seconds=ttl_seconds)))


def _upkeep(snapshot: Snapshot, now: float) -> Iterator[Action]:
    """What must happen to leases whoever waits."""
    waiting = {request.id for request in snapshot.requests} if any(lease.notice for lease in snapshot.leases) else set()
    queues = {queue.name: queue for queue in snapshot.policy.queues}
    for lease in snapshot.leases:
        if lease.is_expired(now):
            yield _end(lease, Outcome.EXPIRED, "its time was up")
        elif lease.id in snapshot.dead and lease.is_live:
            yield _end(lease, Outcome.ABANDONED, "its process has ended")
        elif lease.notice is not None:
            yield from _noticed(lease, lease.notice, waiting - snapshot.dead, now)
        elif lease.active_at is not None and lease.is_live and stage(lease, queues.get(lease.queue), now) == NOTICED:
            idle = queues[lease.queue].idle
            assert idle is not None
            ends_at = max(lease.active_at + idle.reclaim_seconds, now + idle.reclaim_seconds - idle.notice_seconds)
            detail = f"nobody has used it for {format_duration(now - lease.active_at)}"
            notice = Notice(kind=NoticeKind.IDLE, at=now, ends_at=ends_at)
            yield Notify(lease_id=lease.id, token=lease.token, notice=notice, detail=detail)


def _noticed(lease: Lease, notice: Notice, waiting: set[str], now: float) -> Iterator[Action]:
    """A lease that was asked back: let it keep its slices if nobody needs them now, or end it when its time is up."""
    if notice.kind is NoticeKind.IDLE:
        if was_used_since_notice(lease):
            yield Withdraw(lease_id=lease.id, token=lease.token, detail="it is in use again")
        elif now >= notice.ends_at and lease.state is not LeaseState.RELEASING:
            yield _end(lease, Outcome.RECLAIMED, "nobody used it")
    elif notice.request_id not in waiting:
        yield Withdraw(lease_id=lease.id, token=lease.token, detail="nobody needs its room any more")
    elif now >= notice.ends_at:
        yield _end(lease, Outcome.PREEMPTED, "its room was needed by a request that goes first")


def _end(lease: Lease, outcome: Outcome, detail: str) -> End:
    return End(lease_id=lease.id, token=lease.token, outcome=outcome, detail=detail)
