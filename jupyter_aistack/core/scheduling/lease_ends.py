"""What ends a lease whatever waits: the end that its user asked for, the death of its
holder, or that nobody can vouch for it.

A living holder keeps its lease. However late a renewal is (processes were stopped, the
machine slept, a clock was set, the ledger was locked), time alone ends a lease only
where its user asked for that, or where no process can be seen that has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome

EXPIRED = "lease expired"
HOLDER_EXITED = "holder process exited"
NOBODY_KEPT_IT = "nobody kept it: it was not renewed, and its holder cannot be seen"
RELEASE_UNFINISHED = "it was being released, and nobody finished that"

_REASONS = {
    Outcome.EXPIRED: EXPIRED,
    Outcome.ABANDONED: HOLDER_EXITED,
    Outcome.LAPSED: NOBODY_KEPT_IT,
    Outcome.RELEASED: RELEASE_UNFINISHED,
}
_UNRENEWED = frozenset({Outcome.ABANDONED, Outcome.LAPSED, Outcome.RELEASED})
"""Ends of leases that nobody renewed any more."""


def why_over(
    lease: Lease, now: float, *, is_dead: bool, is_unvouched: bool
) -> Outcome | None:
    """How a live lease ends at `now`; None for one that goes on.

    Args:
        lease: the lease.
        now: seconds since the epoch.
        is_dead: its holder is known to be gone.
        is_unvouched: its holder cannot be seen from its host, and nobody has renewed
            it though there was time to.
    """
    if lease.is_expired(now):
        return Outcome.EXPIRED
    is_renewed = lease.is_renewed(now)
    if lease.state is LeaseState.RELEASING:
        # Whoever tears it down may outlive its holder: its devices are not free yet.
        if is_renewed:
            return None
        return Outcome.RELEASED
    if is_dead:
        return Outcome.ABANDONED
    if is_unvouched and not is_renewed:
        return Outcome.LAPSED
    return None


def may_end_by_notice(lease: Lease, now: float) -> bool:
    """Whether a notice may end a lease at `now`: not after a pause in which nobody could
    renew it, for its holder has not had the time that it was given.
    """
    return lease.is_renewed(now)


def after_pause(lease: Lease, now: float) -> Lease:
    """A lease that is renewed at `now`: its notice, and the time in which it may free
    what it holds above a lowered limit, run on for as long as it was not renewed, when
    those who keep it and its holder were stopped.
    """
    paused = now - lease.expires_at
    if paused <= 0:
        return lease
    notice = lease.notice
    if notice is not None:
        notice = replace(notice, ends_at=notice.ends_at + paused)
    limits = tuple(limit.after_pause(paused) for limit in lease.limits)
    return replace(lease, notice=notice, limits=limits)


def reason_of(outcome: Outcome) -> str:
    """An outcome of `why_over` in words."""
    return _REASONS[outcome]


def ended_at(lease: Lease, outcome: Outcome, now: float) -> float:
    """When a lease that is ended at `now` ended, in seconds since the epoch: nobody is
    charged for longer than the last renewal held.
    """
    if outcome in _UNRENEWED:
        return min(now, lease.expires_at)
    return now


def ends_at(lease: Lease) -> float:
    """When a lease is known to end; infinity when it is not."""
    end = math.inf if lease.ends_at is None else lease.ends_at
    if lease.notice is not None:
        end = min(end, lease.notice.ends_at)
    return end


def first_end(leases: Iterable[Lease]) -> float | None:
    """When the first of these leases is known to end; None when none is."""
    end = min((ends_at(lease) for lease in leases), default=math.inf)
    if math.isinf(end):
        return None
    return end
