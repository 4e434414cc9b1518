"""Changes and the plan that was made with them are one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition, Outcome
from jupyter_aistack.core.model.plan import Grant, Plan, Reject
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.exceptions import LeaseLost, StaleToken
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.changes import Finish, Submission, state_after

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


def version_of(ledger: Ledger, now: float = 0.0) -> int:
    return ledger.read("box", now).version


def granting(ledger: Ledger, *requests: Request) -> Plan:
    grants = (
        Grant(request=request, slices=(), expires_at=60.0) for request in requests
    )
    return Plan(version=version_of(ledger), actions=tuple(grants))


def releasing(ledger: Ledger, lease: Lease) -> Finish:
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, 1.0)
    return Finish(lease.id, lease.token)


def test_a_request_is_granted_in_the_transaction_that_writes_it_down(
    ledger: Ledger, wish: Wish
) -> None:
    request = wish("r-1")
    written = ledger.write([Submission(request)], granting(ledger, request), 1.0)
    (answer,) = written.answers
    assert isinstance(answer, Request)
    assert answer.state is RequestState.GRANTED
    assert ledger.request("r-1") == answer
    assert ledger.lease(answer.lease_id, 1.0).request_id == "r-1"
    assert written.conflict is None
    kinds = [event.kind for event in ledger.events()]
    assert kinds == [EventKind.REQUEST_QUEUED, EventKind.LEASE_GRANTED]


def test_changes_are_written_though_their_plan_is_of_a_version_that_is_over(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    plan = granting(ledger, wish("r-2"))
    lease = grant(ledger, wish("r-1"))
    changes = [Submission(wish("r-2")), releasing(ledger, lease)]
    written = ledger.write(changes, plan, 2.0)
    request, ended = written.answers
    assert written.conflict is not None
    assert isinstance(request, Request)
    assert request.state is RequestState.QUEUED
    assert isinstance(ended, Lease)
    assert ended.outcome is Outcome.RELEASED
    state = ledger.read("box", 2.0)
    assert (state.requests, state.leases) == ((request,), ())


def test_the_refusal_of_one_change_is_its_own(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    stale = releasing(ledger, grant(ledger, wish("r-1")))
    over = grant(ledger, wish("r-2"))
    ledger.step(over.id, over.token, LeaseTransition.EXPIRE, 1.0)
    changes = [
        replace(stale, token=stale.token + 7),
        Submission(wish("r-3")),
        Finish(over.id, over.token),
    ]
    plan = Plan(version=version_of(ledger, 1.0), actions=())
    refused, request, lost = ledger.write(changes, plan, 2.0).answers
    assert isinstance(refused, StaleToken)
    assert isinstance(lost, LeaseLost)
    assert request == ledger.request("r-3")
    assert ledger.lease(stale.lease_id, 2.0).state is LeaseState.RELEASING


def test_a_request_that_was_submitted_before_is_answered_as_it_stands(
    ledger: Ledger, wish: Wish
) -> None:
    first = wish("r-1", idempotency_key="k")
    ledger.submit(first)
    again = wish("r-2", idempotency_key="k")
    other = wish("r-3")
    changes = [Submission(again), Submission(other)]
    written = ledger.write(changes, granting(ledger, again, other), 1.0)
    assert written.conflict is not None
    assert written.answers == (first, other)
    assert [lease.id for lease in ledger.read("box", 1.0).leases] == []


def test_an_end_and_what_is_granted_with_it_are_one_write(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    finish = releasing(ledger, grant(ledger, wish("r-1")))
    waiting = ledger.submit(wish("r-2", 1.0))
    plan = granting(ledger, waiting)
    written = ledger.write([finish], plan, 5.0)
    assert written.conflict is None
    state = ledger.read("box", 5.0)
    assert [lease.request_id for lease in state.leases] == ["r-2"]
    assert [account.user for account in state.accounts] == ["ann"]


def test_what_is_rejected_at_once_is_answered_so(ledger: Ledger, wish: Wish) -> None:
    reject = Reject(request_id="r-1", reason="not to wait", code="AcquireTimeout")
    plan = Plan(version=version_of(ledger), actions=(reject,))
    (answer,) = ledger.write([Submission(wish("r-1"))], plan, 1.0).answers
    assert isinstance(answer, Request)
    assert (answer.state, answer.code) == (RequestState.REJECTED, "AcquireTimeout")


@pytest.mark.parametrize("seconds", [0.0, 90.0])
def test_what_is_planned_with_is_what_will_be_written(
    ledger: Ledger, wish: Wish, grant: Granter, seconds: float
) -> None:
    finish = releasing(ledger, grant(ledger, wish("r-1")))
    ledger.submit(wish("r-3", 3.0))
    changes = [Submission(wish("r-2", 2.0)), finish]
    before = ledger.read("box", seconds)
    expected = state_after(before, changes, seconds, ledger.half_life_seconds)
    ledger.write(changes, Plan(version=before.version, actions=()), seconds)
    after = ledger.read("box", seconds)
    assert replace(after, version=before.version) == expected
