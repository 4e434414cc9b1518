"""Changes that are planned with before they are written: what a cycle writes down in one
transaction with its plan. Each is done by whoever has asked for it (`actor`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.usage_history import Account, charged
from jupyter_aistack.exceptions import AIStackError, LedgerConflict

from .actor import Actor, current_actor
from .state import LedgerState


@dataclass(frozen=True)
class Submission:
    """A new request, as `Ledger.submit` writes it down."""

    request: Request
    actor: Actor = field(default_factory=current_actor)


@dataclass(frozen=True)
class Finish:
    """The end of a lease whose devices are closed, as `Ledger.step` writes it down."""

    lease_id: str
    token: int
    actor: Actor = field(default_factory=current_actor)


Change = Submission | Finish
Answer = Request | Lease | AIStackError
"""What became of a change: the request or the lease after it, or why it was refused."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one transaction has made of changes and a plan.

    Attributes:
        answers: to the changes, in their order.
        events: what happened by the plan and by time.
        conflict: why nothing of the plan was carried out: the ledger was another than it
            was made for. None where it was.
    """

    answers: tuple[Answer, ...] = ()
    events: tuple[Event, ...] = ()
    conflict: LedgerConflict | None = None


def state_after(
    state: LedgerState,
    changes: Iterable[Change],
    now: float,
    half_life_seconds: float,
) -> LedgerState:
    """A state as it will be once `changes` are written. It keeps its version: that of
    the ledger that a plan for it is made for.
    """
    changes = tuple(changes)
    if not changes:
        return state
    new = [each.request for each in changes if isinstance(each, Submission)]
    over = {each.lease_id for each in changes if isinstance(each, Finish)}
    accounts = {(each.user, each.queue): each for each in state.accounts}
    for lease in state.leases:
        if lease.id in over:
            _charge(accounts, lease, now, half_life_seconds)
    return replace(
        state,
        leases=tuple(lease for lease in state.leases if lease.id not in over),
        requests=tuple(sorted((*state.requests, *new), key=attrgetter("arrival"))),
        accounts=tuple(accounts[key] for key in sorted(accounts)),
    )


def _charge(
    accounts: dict[tuple[str, str], Account],
    lease: Lease,
    now: float,
    half_life_seconds: float,
) -> None:
    ended = replace(lease, state=LeaseState.ENDED, ended_at=now)
    user = lease.holder.user
    queue = lease.queue
    account = accounts.get((user, queue)) or Account(user=user, queue=queue)
    accounts[user, queue] = charged(account, ended, half_life_seconds)
