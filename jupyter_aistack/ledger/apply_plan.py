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
    SetLimits,
    TransferAction,
    TransferDirection,
    WithdrawNotice,
    grant_to_lease,
)
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.core.scheduling.idle import was_used_since_notice
from jupyter_aistack.core.scheduling.lease_ends import ended_at
from jupyter_aistack.exceptions import LedgerConflict

from .lease_end import end
from .rows import (
    Rows,
    find_lease,
    find_request,
    guarded_lease,
    lease_event,
    request_event,
)

LeaseAction = End | Notify | WithdrawNotice | TransferAction | SetLimits

_STEPS = {
    Outcome.EXPIRED: LeaseTransition.EXPIRE,
    Outcome.PREEMPTED: LeaseTransition.PREEMPT,
    Outcome.FAILED: LeaseTransition.FAIL,
    Outcome.ABANDONED: LeaseTransition.REAP,
    Outcome.RECLAIMED: LeaseTransition.RECLAIM,
    Outcome.LAPSED: LeaseTransition.LAPSE,
    Outcome.RELEASED: LeaseTransition.FINISH,
}
_OF_UNRENEWED = frozenset({Outcome.LAPSED, Outcome.RELEASED})
"""Ends that a renewal since the plan was made prevents."""


_BEFORE = {
    TransferDirection.SUSPEND: StatePhase.RESIDENT,
    TransferDirection.RESUME: StatePhase.PARKED,
}


def named_requests(plan: Plan) -> list[str]:
    """Ids of the requests that a plan decides."""
    granted = [
        action.request.id for action in plan.actions if isinstance(action, Grant)
    ]
    return [*granted, *(reject.request_id for reject in plan.rejections())]


def named_leases(plan: Plan) -> list[str]:
    """Ids of the leases that a plan changes."""
    return [
        action.lease_id
        for action in plan.actions
        if not isinstance(action, Grant | Reject)
    ]


def check_actions(rows: Rows, plan: Plan, now: float) -> None:
    """Refuse a plan that something has overtaken which leaves the version alone.

    Raises:
        LedgerConflict: a request or a lease is not as it was planned for.
        LeaseNotFound, StaleToken: it names what is not there.
    """
    for action in plan.actions:
        if isinstance(action, Grant):
            _check_waits(rows, action.request.id)
        elif isinstance(action, Reject):
            _check_waits(rows, action.request_id)
        else:
            lease = guarded_lease(rows, action.lease_id, action.token)
            # What the plan says of a lease that has ended meanwhile is left out.
            if lease.is_live:
                _check_lease(lease, action, now)


def _check_waits(rows: Rows, request_id: str) -> None:
    if find_request(rows, request_id).state is not RequestState.QUEUED:
        raise LedgerConflict(
            f"request {request_id} does not wait any more", request_id=request_id
        )


def _check_lease(lease: Lease, action: LeaseAction, now: float) -> None:
    """Refuse what a renewal, a use or a move of the state has overtaken.

    These leave the version alone, so that a plan need not be made anew for each. Without
    the check a lease would end though its holder had just renewed or used it.
    """
    if isinstance(action, TransferAction):
        _check_transfer(lease, action)
    elif isinstance(action, Notify):
        _check_idle(replace(lease, notice=action.notice))
    elif isinstance(action, End):
        _check_end(lease, action.outcome, now)


def _check_transfer(lease: Lease, action: TransferAction) -> None:
    phase = None if lease.residence is None else lease.residence.phase
    if phase is not _BEFORE[action.direction]:
        raise LedgerConflict(
            f"the state of lease {lease.id} has moved meanwhile", lease_id=lease.id
        )


def _check_end(lease: Lease, outcome: Outcome, now: float) -> None:
    is_extended = outcome is Outcome.EXPIRED and not lease.is_expired(now)
    is_renewed = outcome in _OF_UNRENEWED and lease.is_renewed(now)
    if is_extended or is_renewed:
        raise LedgerConflict(
            f"lease {lease.id} was renewed meanwhile", lease_id=lease.id
        )
    if outcome is Outcome.RECLAIMED:
        _check_idle(lease)


def _check_idle(lease: Lease) -> None:
    if was_used_since_notice(lease):
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
        return [_reject(rows, action, now)]
    lease = find_lease(rows, action.lease_id)
    if not lease.is_live:
        return []
    if isinstance(action, End):
        step = _STEPS[action.outcome]
        at = ended_at(lease, action.outcome, now)
        _, event = end(rows, lease, step, at, half_life_seconds, action.detail)
        return [event]
    return _apply_to_live(rows, lease, action, now)


def _apply_to_live(
    rows: Rows,
    lease: Lease,
    action: Notify | WithdrawNotice | TransferAction | SetLimits,
    now: float,
) -> list[Event]:
    if isinstance(action, TransferAction):
        _begin_transfer(rows, lease, action, now)
        return []  # nothing has happened yet that is worth an event
    if isinstance(action, SetLimits):
        return [_set_limits(rows, lease, action, now)]
    if isinstance(action, Notify):
        return [_notify(rows, lease, action, now)]
    if lease.notice is None:
        return []
    return [withdraw(rows, lease, now, action.detail)]


def _reject(rows: Rows, action: Reject, now: float) -> Event:
    request = find_request(rows, action.request_id)
    rejected = replace(
        request,
        state=RequestState.REJECTED,
        reason=action.reason,
        code=action.code,
    )
    return set_request_state(rows, request, rejected, EventKind.REQUEST_REJECTED, now)


def _grant(rows: Rows, grant: Grant, now: float) -> Event:
    lease = grant_to_lease(grant, f"l-{uuid.uuid4().hex[:16]}", rows.next_token(), now)
    rows.keep_lease(lease, is_new=True)
    rows.keep_request(
        replace(grant.request, state=RequestState.GRANTED, reason="", lease_id=lease.id)
    )
    rows.version += 1
    return _written(rows, lease_event(EventKind.LEASE_GRANTED, lease, now))


def _notify(rows: Rows, lease: Lease, action: Notify, now: float) -> Event:
    noticed = replace(lease, notice=action.notice)
    rows.keep_lease(noticed)
    rows.version += 1
    return _written(
        rows,
        lease_event(EventKind.LEASE_NOTICED, noticed, now, action.detail, was=lease),
    )


def _set_limits(rows: Rows, lease: Lease, action: SetLimits, now: float) -> Event:
    limited = replace(lease, limits=action.limits)
    rows.keep_lease(limited)
    # A plan that divides the same device goes by the old limits, and is made anew.
    rows.version += 1
    return _written(
        rows, lease_event(EventKind.LEASE_LIMITS_CHANGED, limited, now, was=lease)
    )


def _begin_transfer(
    rows: Rows, lease: Lease, action: TransferAction, now: float
) -> None:
    assert lease.residence is not None  # checked
    if action.direction is TransferDirection.SUSPEND:
        begun = begin_suspend(lease.residence)
    else:
        begun = begin_resume(lease.residence)
    keep_residence(rows, lease, begun, now)


def keep_residence(
    rows: Rows, lease: Lease, residence: DeviceState, now: float
) -> Lease:
    """Write down where a lease's state is; plans made before hold no more."""
    assert lease.residence is not None  # a lease never gets a residence later
    counted = with_suspended_time(lease.residence, residence, now)
    changed = replace(lease, residence=counted)
    rows.keep_lease(changed)
    rows.version += 1
    return changed


def withdraw(rows: Rows, lease: Lease, now: float, detail: str) -> Event:
    """Withdraw the notice of a lease."""
    spared = replace(lease, notice=None)
    rows.keep_lease(spared)
    rows.version += 1
    return _written(
        rows,
        lease_event(EventKind.LEASE_NOTICE_WITHDRAWN, spared, now, detail, was=lease),
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
    rows: Rows, request: Request, decided: Request, kind: EventKind, now: float
) -> Event:
    """Write down what a request has become; it waits no longer."""
    rows.keep_request(decided)
    rows.version += 1
    return _written(rows, request_event(kind, decided, now, was=request))


def _written(rows: Rows, event: Event) -> Event:
    rows.append(event)
    return event
