"""When a lease is idle, what its holder is notified of, and when it is reclaimed: the
whole rule and its constants.

A lease is in use while a cell of its kernel runs or its device works, as the server of
that kernel sees it. A lease that is not observed (a script's, for example) is never
idle: what cannot be seen is taken to be in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState, Notice, NoticeKind
from jupyter_aistack.core.model.policy import IdlePolicy, Queue
from jupyter_aistack.core.suspend.feasibility import not_suspendable
from jupyter_aistack.core.suspend.model import HostMemory, SuspendCandidate

RECORD_SECONDS = 60.0
"""Between two records of the same lease's use, so that the ledger is not written all
the time."""
GPU_WORKING = 0.01
CPU_WORKING = 0.05
"""Busy share from which a GPU slice, or a CPU slice, counts as working; a Python that
does nothing but keep a page's widgets up to date takes a hundredth or two of a core."""
SHOWN_SECONDS = 2 * RECORD_SECONDS
"""From when on its own holder is shown that a lease is idle: before that it may be in
use, and not recorded yet."""
NAMED_SECONDS = 600.0
"""From when on waiting users are shown that a lease in their way is idle."""


class IdleStage(StrEnum):
    """How far an idle lease is on its way to being reclaimed."""

    IN_USE = ""
    IDLE = "idle"  # it is marked as idle
    NOTICED = "noticed"  # its holder should be notified of when it ends


def idle_seconds(lease: Lease, now: float) -> float | None:
    """How long a lease has not been in use; None where that is not observed."""
    if lease.active_at is None:
        return None
    return max(0.0, now - lease.active_at)


def idle_stage(lease: Lease, queue: Queue | None, now: float) -> IdleStage:
    """How far a lease of `queue` is; in use where the queue reclaims none."""
    policy = None if queue is None else queue.idle
    seconds = idle_seconds(lease, now)
    if policy is None or seconds is None or lease.state is LeaseState.RELEASING:
        return IdleStage.IN_USE
    if seconds >= policy.notice_seconds:
        return IdleStage.NOTICED
    if seconds >= policy.badge_seconds:
        return IdleStage.IDLE
    return IdleStage.IN_USE


def record_interval(queue: Queue | None) -> float:
    """Seconds between two records of a lease's use: often enough for the queue's first
    threshold.
    """
    if queue is None or queue.idle is None:
        return RECORD_SECONDS
    return min(RECORD_SECONDS, queue.idle.badge_seconds / 4)


def is_record_due(
    lease: Lease, queue: Queue | None, now: float, *, is_active: bool
) -> bool:
    """Whether the use of a lease must be recorded now.

    The first record starts its time, in use or not; and use after a notice counts at
    once, for the lease may be reclaimed any moment.
    """
    if lease.active_at is None:
        return True
    if not is_active:
        return False
    return has_idle_notice(lease) or now - lease.active_at >= record_interval(queue)


def has_idle_notice(lease: Lease) -> bool:
    """Whether its holder was notified that it will be reclaimed for being idle."""
    return lease.notice is not None and lease.notice.kind is NoticeKind.IDLE


def was_used_since_notice(lease: Lease) -> bool:
    """Whether a lease with an idle notice has been used since."""
    notice = lease.notice
    if notice is None or notice.kind is not NoticeKind.IDLE:
        return False
    return lease.active_at is not None and lease.active_at > notice.at


def is_reclaimable(lease: Lease, now: float) -> bool:
    """Whether its idle notice is over and it has not been used since."""
    notice = lease.notice
    if notice is None or notice.kind is not NoticeKind.IDLE or now < notice.ends_at:
        return False
    return lease.state is not LeaseState.RELEASING and not was_used_since_notice(lease)


def idle_notice(lease: Lease, queue: Queue | None, now: float) -> Notice | None:
    """The notice that a lease should be given now; None where it should not.

    However late it comes, its holder has as long as the queue promises to use or extend
    the lease.
    """
    policy = None if queue is None else queue.idle
    if policy is None or lease.active_at is None:
        return None
    if idle_stage(lease, queue, now) is not IdleStage.NOTICED:
        return None
    return Notice(kind=NoticeKind.IDLE, at=now, ends_at=_reclaim_at(lease, policy, now))


def _reclaim_at(lease: Lease, policy: IdlePolicy, now: float) -> float:
    warning_seconds = policy.reclaim_seconds - policy.notice_seconds
    active_at = now if lease.active_at is None else lease.active_at
    return max(active_at + policy.reclaim_seconds, now + warning_seconds)


def exempt_from_reclaim(
    leases: Iterable[Lease], host: HostMemory | None, *, may_suspend: bool
) -> frozenset[str]:
    """Leases that are not reclaimed for being idle: they are suspended instead, or are
    so already.

    Args:
        leases: the live leases.
        host: the same leases as the rules of suspension see them; None where nothing
            has to do with suspension.
        may_suspend: whether leases are suspended on this host at all.
    """
    if host is None:
        return frozenset()
    with_state = {lease.id for lease in leases if lease.residence is not None}
    blocked = not_suspendable(host)[1] if may_suspend else frozenset(with_state)
    return frozenset(
        candidate.lease_id
        for candidate in host.candidates
        if candidate.lease_id in with_state and _is_exempt(candidate, blocked)
    )


def _is_exempt(candidate: SuspendCandidate, blocked: frozenset[str]) -> bool:
    if candidate.phase is StatePhase.RESIDENT:
        return not candidate.pinned and candidate.lease_id not in blocked
    return candidate.phase is not StatePhase.LOST
