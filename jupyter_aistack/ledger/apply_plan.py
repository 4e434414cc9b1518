"""How a plan is carried out: everything is checked first, and only then changed."""

from __future__ import annotations

import uuid
from dataclasses import replace

from jupyter_aistack.core.model.device_state import (
    DeviceState,
    StatePhase,
    begin_resume,
    begin_suspend,
    with_suspended_time,
)
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition, NoticeKind, Outcome
from jupyter_aistack.core.model.plan import (
    Action,
    End,
    Grant,
    Notify,
    Plan,
    Reject,
    TransferAction,
    TransferDirection,
    WithdrawNotice,
    grant_to_lease,
)
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.core.scheduling.idle import was_used_since_notice
from jupyter_aistack.exceptions import LedgerConflict

from .lease_end import end
from .rows import Rows, find_lease, find_request, guarded_lease, lease_event

_STEPS = {
    Outcome.EXPIRED: LeaseTransition.EXPIRE,
    Outcome.PREEMPTED: LeaseTransition.PREEMPT,
    Outcome.FAILED: LeaseTransition.FAIL,
    Outcome.ABANDONED: LeaseTransition.REAP,
    Outcome.RECLAIMED: LeaseTransition.RECLAIM,
}


_BEFORE = {
    TransferDirection.SUSPEND: StatePhase.RESIDENT,
    TransferDirection.RESUME: StatePhase.PARKED,
}


def check(rows: Rows, plan: Plan, now: float) -> None:
    """Refuse a plan that was made for another state of the ledger.

    Raises:
        LedgerConflict: the ledger has moved on since.
        LeaseNotFound, StaleToken: it names what is not there.
    """
    if plan.version != rows.version:
        raise LedgerConflict(version=rows.version, planned_for=plan.version)
    for action in plan.actions:
        if isinstance(action, Grant | Reject):
            _check_waits(
                rows,
                action.request.id if isinstance(action, Grant) else action.request_id,
            )
        else:
            _check_lease(
                guarded_lease(rows, action.lease_id, action.token), action, now
            )


def _check_waits(rows: Rows, request_id: str) -> None:
    if find_request(rows, request_id).state is not RequestState.QUEUED:
        raise LedgerConflict(
            f"request {request_id} does not wait any more", request_id=request_id
        )


def _check_lease(
    lease: Lease, action: End | Notify | WithdrawNotice | TransferAction, now: float
) -> None:
    """Refuse what a renewal or a use has overtaken: these leave the version alone."""
    if not lease.is_live:
        return
    if isinstance(action, TransferAction) and (
        lease.residence is None
        or lease.residence.phase is not _BEFORE[action.direction]
    ):
        raise LedgerConflict(
            f"the state of lease {lease.id} has moved meanwhile", lease_id=lease.id
        )
    outcome = action.outcome if isinstance(action, End) else None
    if outcome is Outcome.EXPIRED and not lease.is_expired(now):
        raise LedgerConflict(
            f"lease {lease.id} was renewed meanwhile", lease_id=lease.id
        )
    noticed = (
        replace(lease, notice=action.notice) if isinstance(action, Notify) else lease
    )
    if (
        outcome is Outcome.RECLAIMED or isinstance(action, Notify)
    ) and was_used_since_notice(noticed):
        raise LedgerConflict(f"lease {lease.id} was used meanwhile", lease_id=lease.id)


def apply_action(
    rows: Rows, action: Action, now: float, half_life_seconds: float
) -> list[Event]:
    """Do what a checked plan says. What it says about a lease that has ended meanwhile
    is left out.
    """
    if isinstance(action, Grant):
        return [_grant(rows, action, now)]
    if isinstance(action, Reject):
        request = find_request(rows, action.request_id)
        rejected = replace(
            request,
            state=RequestState.REJECTED,
            reason=action.reason,
            code=action.code,
        )
        return [set_request_state(rows, rejected, EventKind.REQUEST_REJECTED, now)]
    lease = find_lease(rows, action.lease_id)
    if not lease.is_live:
        return []
    if isinstance(action, End):
        return [
            end(
                rows,
                lease,
                _STEPS[action.outcome],
                now,
                half_life_seconds,
                action.detail,
            )[1]
        ]
    if isinstance(action, TransferAction):
        return _begin_move(rows, lease, action, now)
    if isinstance(action, Notify):
        return [_notify(rows, lease, action, now)]
    return (
        [withdraw(rows, lease, now, action.detail)] if lease.notice is not None else []
    )


def _grant(rows: Rows, grant: Grant, now: float) -> Event:
    lease = grant_to_lease(grant, f"l-{uuid.uuid4().hex[:16]}", rows.next_token(), now)
    rows.keep_lease(lease, is_new=True)
    rows.keep_request(
        replace(grant.request, state=RequestState.GRANTED, reason="", lease_id=lease.id)
    )
    rows.version += 1
    return rows.append(lease_event(EventKind.LEASE_GRANTED, lease, now))


def _notify(rows: Rows, lease: Lease, action: Notify, now: float) -> Event:
    rows.keep_lease(replace(lease, notice=action.notice))
    rows.version += 1
    return rows.append(lease_event(EventKind.LEASE_NOTICED, lease, now, action.detail))


def _begin_move(
    rows: Rows, lease: Lease, move: TransferAction, now: float
) -> list[Event]:
    """Nothing has happened yet that anybody should be told: the state is on its way."""
    assert lease.residence is not None  # checked
    begin = (
        begin_suspend if move.direction is TransferDirection.SUSPEND else begin_resume
    )
    keep_residence(rows, lease, begin(lease.residence), now)
    return []


def keep_residence(
    rows: Rows, lease: Lease, residence: DeviceState, now: float
) -> Lease:
    """Write down where a lease's state is; plans made before hold no more."""
    assert lease.residence is not None  # none gets one later
    changed = replace(
        lease, residence=with_suspended_time(lease.residence, residence, now)
    )
    rows.keep_lease(changed)
    rows.version += 1
    return changed


def withdraw(rows: Rows, lease: Lease, now: float, detail: str) -> Event:
    """Take the notice of a lease back."""
    rows.keep_lease(replace(lease, notice=None))
    rows.version += 1
    return rows.append(
        lease_event(EventKind.LEASE_NOTICE_WITHDRAWN, lease, now, detail)
    )


def touch(rows: Rows, lease: Lease, now: float) -> None:
    """Note that a live lease is in use; it is not idle any more."""
    if lease.active_at is not None and lease.active_at >= now:
        return
    used = replace(lease, active_at=now)
    if used.notice is not None and used.notice.kind is NoticeKind.IDLE:
        withdraw(rows, used, now, "it is in use again")
    else:
        rows.keep_lease(used)


def set_request_state(
    rows: Rows, decided: Request, kind: EventKind, now: float
) -> Event:
    """Write down what a request has become; it waits no longer."""
    rows.keep_request(decided)
    rows.version += 1
    return rows.append(
        Event(kind=kind, at=now, request_id=decided.id, detail=decided.reason)
    )
