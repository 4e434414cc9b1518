"""One step of a lease: its row, its conditions, and what is said of it, in one
transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jupyter_aistack.core.model.condition import ConditionUpdate
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    Outcome,
    advance,
)

from .lease_end import end
from .rows import Rows, lease_event, refuse_ended

_STEP_EVENTS = {
    LeaseTransition.ACTIVATE: EventKind.LEASE_ACTIVATED,
    LeaseTransition.SUSPEND: EventKind.LEASE_SUSPENDED,
    LeaseTransition.RESUME: EventKind.LEASE_RESUMED,
}
_RELEASING = (LeaseTransition.RELEASE, LeaseTransition.FINISH)


def step_lease(
    rows: Rows,
    lease: Lease,
    step: LeaseTransition,
    now: float,
    half_life_seconds: float,
    changes: dict[str, Any] | None = None,
    conditions: ConditionUpdate | None = None,
) -> Lease:
    """Advance a lease and replace the fields named in `changes`. Raises `LeaseLost` when
    it has ended.
    """
    # Releasing a lease twice is releasing it once; any other step on a lease that has
    # ended tells its holder so.
    if lease.outcome is Outcome.RELEASED and step in _RELEASING:
        return lease
    refuse_ended(lease)
    return advance_lease(rows, lease, step, now, half_life_seconds, changes, conditions)


def advance_lease(
    rows: Rows,
    lease: Lease,
    step: LeaseTransition,
    now: float,
    half_life_seconds: float,
    changes: dict[str, Any] | None = None,
    conditions: ConditionUpdate | None = None,
) -> Lease:
    """As `step_lease`, for a lease that lives."""
    # Applied to the row as it is in this transaction: a condition that another process
    # has set since the caller read the lease must not be lost.
    update = conditions or ConditionUpdate()
    changes = {**(changes or {}), "conditions": update.apply(lease.conditions)}
    after = replace(advance(lease, step, now), **changes)
    if after.state is LeaseState.ENDED:
        # Its end, and what its user is charged for it, are one transaction: a lease
        # that ended uncharged could never be found again.
        reason = update.text if step is LeaseTransition.FAIL else ""
        end(rows, lease, step, now, half_life_seconds, reason, changes)
    else:
        rows.keep_lease(after)

    if step in _STEP_EVENTS:
        detail = _detail(after, step)
        kind = _STEP_EVENTS[step]
        rows.append(lease_event(kind, after, now, detail, was=lease))
    if changes.get("verified") is False:
        kind = EventKind.LEASE_NOT_ENFORCED
        rows.append(lease_event(kind, after, now, update.text, was=lease))
    return after


def _detail(lease: Lease, step: LeaseTransition) -> str:
    """The words of a step's event: for a move of the device state, how much that was
    and how long it took.
    """
    is_move = step in (LeaseTransition.SUSPEND, LeaseTransition.RESUME)
    if not is_move or lease.residence is None:
        return ""
    return lease.residence.note
