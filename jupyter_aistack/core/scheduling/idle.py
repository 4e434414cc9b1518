"""When a lease is idle: seen from both sides, no cell runs and no device works, and for
how long.

A lease that nobody watches (a script's, say) is never idle: what cannot be seen is
taken to be in use.
"""

from __future__ import annotations

from jupyter_aistack.core.model.lease import Lease, LeaseState, NoticeKind
from jupyter_aistack.core.model.policy import Queue

IDLE = "idle"
NOTICED = "noticed"


def idle_seconds(lease: Lease, now: float) -> float | None:
    """How long a lease has not been in use; None where nobody watches it."""
    return None if lease.active_at is None else max(0.0, now - lease.active_at)


def stage(lease: Lease, queue: Queue | None, now: float) -> str:
    """``""``, ``"idle"`` (worth a badge) or ``"noticed"`` (its holder should be told
    when it ends).
    """
    seconds = idle_seconds(lease, now)
    if (
        queue is None
        or queue.idle is None
        or seconds is None
        or lease.state is LeaseState.RELEASING
    ):
        return ""
    if seconds >= queue.idle.notice_seconds:
        return NOTICED
    return IDLE if seconds >= queue.idle.badge_seconds else ""


def was_used_since_notice(lease: Lease) -> bool:
    """Whether a lease that was told it is idle has been used since."""
    notice = lease.notice
    return (
        notice is not None
        and notice.kind is NoticeKind.IDLE
        and lease.active_at is not None
        and lease.active_at > notice.at
    )
