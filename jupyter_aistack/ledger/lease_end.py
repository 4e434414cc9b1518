"""How a lease ends in the ledger: its row, its event, and what its user is charged, in
one transaction.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition, Outcome, advance
from jupyter_aistack.core.model.usage_history import Account, charged

from .actor import acting_by_itself
from .rows import Rows, lease_event

_EVENTS = {
    Outcome.RELEASED: EventKind.LEASE_RELEASED,
    Outcome.EXPIRED: EventKind.LEASE_EXPIRED,
    Outcome.PREEMPTED: EventKind.LEASE_PREEMPTED,
    Outcome.FAILED: EventKind.LEASE_FAILED,
    Outcome.ABANDONED: EventKind.LEASE_ABANDONED,
    Outcome.RECLAIMED: EventKind.LEASE_RECLAIMED,
    Outcome.LAPSED: EventKind.LEASE_LAPSED,
}


def due_at(lease: Lease) -> float:
    """When time alone ends a lease, in seconds since the epoch: at the end that its user
    asked for; infinity without one.
    """
    return math.inf if lease.ends_at is None else lease.ends_at


def expire_due(rows: Rows, now: float, half_life_seconds: float) -> list[Event]:
    """End every live lease that is past the end its user asked for. It ended then, not
    when that was noticed.

    Nothing else ends by time here: whether a holder lives cannot be seen from inside a
    transaction.
    """
    late = sorted(rows.due(now), key=lambda lease: lease.token)
    if not late:
        return []
    with acting_by_itself():
        return [
            end(
                rows,
                lease,
                LeaseTransition.EXPIRE,
                due_at(lease),
                half_life_seconds,
                "lease expired",
            )[1]
            for lease in late
        ]


def end(
    rows: Rows,
    lease: Lease,
    step: LeaseTransition,
    at: float,
    half_life_seconds: float,
    detail: str = "",
    changes: dict[str, Any] | None = None,
) -> tuple[Lease, Event]:
    """End `lease` by `step` at time `at`, and charge it to its
    user's account.

    Raises:
        InvalidTransition: the step is not in the table; nothing was changed.
    """
    ended = replace(advance(lease, step, at), **changes or {})
    assert ended.outcome is not None, f"{step} ends no lease"
    rows.keep_lease(ended)
    _charge(rows, ended, half_life_seconds)
    rows.version += 1
    event = lease_event(_EVENTS[ended.outcome], ended, at, detail, was=lease)
    rows.append(event)
    return ended, event


def _charge(rows: Rows, ended: Lease, half_life_seconds: float) -> None:
    user = ended.holder.user
    queue = ended.queue
    known = rows.account(user, queue)
    account = known or Account(user=user, queue=queue)
    rows.keep_account(charged(account, ended, half_life_seconds), is_new=known is None)
