"""The ledger's contract, sentence by sentence, on every ledger there is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    SuspendMethod,
    cell_begins,
    mark_lost,
    resumed,
    suspended,
)
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.plan import (
    End,
    Grant,
    Plan,
    Reject,
    SetLimits,
    TransferAction,
    TransferDirection,
)
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.exceptions import (
    InvalidTransition,
    LeaseError,
    LeaseLost,
    LeaseNotFound,
    LedgerConflict,
    StaleToken,
)
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


NOTED = ConditionUpdate(put=(new_condition(ConditionKind.NOTE, "äöü € 🎛", 1.0),))
"""Sets one condition."""


def kinds(ledger: Ledger) -> list[EventKind]:
    return [event.kind for event in ledger.events()]


def version(ledger: Ledger, now: float = 0.0) -> int:
    return ledger.read("box", now).version


def end(lease: Lease, outcome: Outcome) -> End:
    return End(lease_id=lease.id, token=lease.token, outcome=outcome, detail="why")


def release(ledger: Ledger, lease: Lease, now: float) -> Lease:
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, now)
    return ledger.step(lease.id, lease.token, LeaseTransition.FINISH, now)


# -- requests --------------------------------------------------------------------------


def test_a_submitted_request_is_read_back_field_by_field(
    ledger: Ledger, wish: Wish
) -> None:
    request = wish(
        "r-1",
        5.25,
        spec="gpu:1/3x2",
        queue="night",
        priority=-3,
        lease_seconds=0.1,
        patience_seconds=0.0,
        preemptible=True,
        up_to=Fraction(2, 3),
    )
    request = replace(
        request,
        holder=replace(
            request.holder, pid_started_at=0.1 + 0.2, root_pid=7, parent="k-0"
        ),
    )
    assert ledger.submit(request) == request
    assert ledger.request("r-1") == request
    assert ledger.read("box", 5.25).requests == (request,)
    assert kinds(ledger) == [EventKind.REQUEST_QUEUED]


def test_submitting_the_same_id_twice_returns_the_first_unchanged(
    ledger: Ledger, wish: Wish
) -> None:
    first = ledger.submit(wish("r-1", 1.0))
    before = version(ledger)
    assert ledger.submit(wish("r-1", 2.0, spec="1")) == first
    assert (version(ledger), len(ledger.events())) == (before, 1)


def test_only_the_host_asked_for_is_read(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    other = grant(ledger, wish("r-1", host="other"))
    ledger.submit(wish("r-2", host="other"))
    assert ledger.read("box", 1.0).leases == ledger.read("box", 1.0).requests == ()
    assert ledger.read("other", 1.0).leases == (other,)
    assert [request.id for request in ledger.read("other", 1.0).requests] == ["r-2"]


def test_a_cancelled_request_leaves_the_queue_with_its_reason(
    ledger: Ledger, wish: Wish
) -> None:
    ledger.submit(wish("r-1"))
    cancelled = ledger.cancel("r-1", 3.0, "not needed")
    assert (cancelled.state, cancelled.reason) == (RequestState.CANCELLED, "not needed")
    assert ledger.request("r-1") == cancelled
    assert ledger.read("box", 3.0).requests == ()
    last = ledger.events()[-1]
    assert (last.kind, last.request_id, last.at, last.detail) == (
        EventKind.REQUEST_CANCELLED,
        "r-1",
        3.0,
        "not needed",
    )


def test_a_waiting_request_can_be_put_in_another_name(
    ledger: Ledger, wish: Wish
) -> None:
    queued = ledger.submit(wish("r-1"))
    before = ledger.read("box", 1.0)
    renamed = replace(queued.holder, label="final.ipynb", allowance="GPU-2")
    rebound = ledger.rebind("r-1", 2.0, renamed)
    assert rebound == replace(queued, holder=renamed) == ledger.request("r-1")
    after = ledger.read("box", 2.0)
    assert (after.requests, after.version > before.version) == ((rebound,), True)
    assert ledger.rebind("r-1", 3.0, renamed) == rebound
    assert ledger.read("box", 3.0).version == after.version


def test_what_is_decided_stays_in_its_name(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    grant(ledger, wish("r-1"))
    decided = ledger.request("r-1")
    renamed = replace(decided.holder, label="final.ipynb")
    assert ledger.rebind("r-1", 1.0, renamed) == decided == ledger.request("r-1")


def test_cancelling_what_is_decided_returns_it_as_it_stands(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    assert ledger.cancel("r-1", 1.0) == ledger.request("r-1")
    assert ledger.request("r-1").lease_id == lease.id
    assert EventKind.REQUEST_CANCELLED not in kinds(ledger)


@pytest.mark.parametrize(
    "strange", ["r-none", "", "r\0", "r-\ud800", "r-é", "r-1' OR '1'='1"]
)
def test_what_is_not_there_is_not_found(
    ledger: Ledger, wish: Wish, strange: str
) -> None:
    ledger.submit(wish("r-1"))
    with pytest.raises(LeaseNotFound):
        ledger.request(strange)
    with pytest.raises(LeaseNotFound):
        ledger.cancel(strange, 0.0)
    with pytest.raises(LeaseNotFound):
        ledger.lease(strange, 0.0)
    with pytest.raises(LeaseNotFound):
        ledger.renew(strange, 1, 0.0, 1.0)


def test_a_key_finds_the_request_of_its_user_until_that_is_taken_back(
    ledger: Ledger, wish: Wish
) -> None:
    first = ledger.submit(wish("r-1", idempotency_key="key"))
    assert ledger.submit(wish("r-2", 1.0, idempotency_key="key")) == first
    assert ledger.request_of_key("ann", "key") == first
    assert ledger.request_of_key("ann", "other") is None
    bobs = wish("r-3", idempotency_key="key")
    bobs = replace(bobs, holder=replace(bobs.holder, user="bob"))
    assert ledger.submit(bobs) == bobs == ledger.request_of_key("bob", "key")
    ledger.cancel("r-1", 2.0)
    assert ledger.request_of_key("ann", "key") is None
    assert ledger.submit(wish("r-4", 3.0, idempotency_key="key")).id == "r-4"


def test_requests_without_a_key_are_each_their_own(ledger: Ledger, wish: Wish) -> None:
    assert [ledger.submit(wish(name)).id for name in ("r-1", "r-2")] == ["r-1", "r-2"]
    assert ledger.request_of_key("ann", "") is None


# -- plans -----------------------------------------------------------------------------


def test_a_granted_request_gets_a_lease_and_knows_it(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    request = wish("r-1", preemptible=True, queue="night")
    lease = grant(ledger, request, 10.0, ends_at=500.0)
    assert lease == Lease(
        id=lease.id,
        token=1,
        request_id="r-1",
        spec=request.spec,
        holder=request.holder,
        slices=lease.slices,
        granted_at=10.0,
        expires_at=70.0,
        queue="night",
        ends_at=500.0,
        preemptible=True,
    )
    assert lease.slices[0].cores == (0, 2)
    assert ledger.request("r-1") == replace(
        request, state=RequestState.GRANTED, lease_id=lease.id
    )
    assert ledger.read("box", 10.0).requests == ()
    assert ledger.read("box", 10.0).leases == ledger.leases(10.0) == (lease,)
    last = ledger.events()[-1]
    assert (last.kind, last.lease_id, last.request_id) == (
        EventKind.LEASE_GRANTED,
        lease.id,
        "r-1",
    )


def test_tokens_grow_and_are_never_used_twice(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    first = grant(ledger, wish("r-1"))
    release(ledger, first, 1.0)
    second = grant(ledger, wish("r-2"), 2.0)
    assert second.token > first.token
    assert ledger.leases(2.0, live=False) == (second, ledger.lease(first.id, 2.0))


def test_a_rejected_request_says_why(ledger: Ledger, wish: Wish) -> None:
    ledger.submit(wish("r-1"))
    (event,) = ledger.apply(
        Plan(
            version=version(ledger),
            actions=(Reject(request_id="r-1", reason="too big"),),
        ),
        4.0,
    )
    assert (event.kind, event.detail, event.request_id) == (
        EventKind.REQUEST_REJECTED,
        "too big",
        "r-1",
    )
    assert (ledger.request("r-1").state, ledger.request("r-1").reason) == (
        RequestState.REJECTED,
        "too big",
    )


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.ABANDONED, EventKind.LEASE_ABANDONED),
        (Outcome.PREEMPTED, EventKind.LEASE_PREEMPTED),
        (Outcome.RECLAIMED, EventKind.LEASE_RECLAIMED),
    ],
)
def test_a_plan_ends_leases(
    ledger: Ledger, wish: Wish, grant: Granter, outcome: Outcome, kind: EventKind
) -> None:
    lease = grant(ledger, wish("r-1"))
    (event,) = ledger.apply(
        Plan(version=version(ledger), actions=(end(lease, outcome),)), 5.0
    )
    ended = ledger.lease(lease.id, 5.0)
    assert (ended.state, ended.outcome, ended.ended_at) == (
        LeaseState.ENDED,
        outcome,
        5.0,
    )
    assert (event.kind, event.detail, event.lease_id) == (kind, "why", lease.id)
    assert ledger.leases(5.0) == ()


def test_a_plan_for_another_version_changes_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    stale = version(ledger)
    ledger.submit(wish("r-2", 1.0))
    before = (ledger.read("box", 2.0), ledger.events())
    with pytest.raises(LedgerConflict):
        ledger.apply(Plan(version=stale, actions=(end(lease, Outcome.ABANDONED),)), 2.0)
    assert (ledger.read("box", 2.0), ledger.events()) == before


def test_a_plan_is_carried_out_whole_or_not_at_all(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = (ledger.read("box", 1.0), ledger.events())
    actions = (
        end(lease, Outcome.ABANDONED),
        Grant(request=wish("r-1"), slices=lease.slices, expires_at=99.0),
    )
    with pytest.raises(LedgerConflict):  # r-1 was granted before
        ledger.apply(Plan(version=before[0].version, actions=actions), 1.0)
    assert (ledger.read("box", 1.0), ledger.events()) == before


def test_a_plan_that_ends_a_lease_renewed_meanwhile_is_refused(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    seen = version(ledger, 59.0)
    ledger.renew(lease.id, lease.token, 59.5, 119.5)
    for outcome in (Outcome.LAPSED, Outcome.EXPIRED):
        with pytest.raises(LedgerConflict):
            ledger.apply(Plan(version=seen, actions=(end(lease, outcome),)), 61.0)
    assert ledger.lease(lease.id, 61.0).is_live


def test_no_time_ends_a_lease_that_is_only_not_renewed(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    later = 1e9
    for look in LOOKS.values():
        look(ledger, lease.id, later)
    ledger.submit(wish("r-2", later))
    assert ledger.lease(lease.id, later) == lease
    assert ledger.renew(lease.id, lease.token, later, later + 60.0).is_live


def test_a_plan_ends_what_nobody_kept_when_its_last_renewal_was_over(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lapsed = grant(ledger, wish("r-1"))
    left = grant(ledger, wish("r-2"))
    ledger.step(left.id, left.token, LeaseTransition.RELEASE, 1.0)
    actions = (end(lapsed, Outcome.LAPSED), end(left, Outcome.RELEASED))
    seen = version(ledger, 75.0)
    with pytest.raises(LedgerConflict):
        ledger.apply(Plan(version=seen, actions=actions), 59.0)
    events = ledger.apply(Plan(version=seen, actions=actions), 75.0)
    assert [(event.kind, event.at) for event in events] == [
        (EventKind.LEASE_LAPSED, 60.0),
        (EventKind.LEASE_RELEASED, 60.0),
    ]
    ended = ledger.lease(lapsed.id, 75.0)
    assert (ended.outcome, ended.ended_at) == (Outcome.LAPSED, 60.0)
    with pytest.raises(LeaseLost, match="nobody kept it"):
        ledger.renew(lapsed.id, lapsed.token, 75.0, 135.0)


def test_a_plan_sets_what_a_lease_with_a_ceiling_may_use(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1", up_to=Fraction(1)))
    assert (lease.up_to, lease.limits) == (Fraction(1), ())
    limit = SliceLimit(
        device_id="GPU-1",
        fraction=Fraction(2, 3),
        memory_bytes=5,
        cores=(0, 2, 3),
        lowered_at=0.1,
        lowered_from_bytes=7,
    )
    before = version(ledger)
    action = SetLimits(lease_id=lease.id, token=lease.token, limits=(limit,))
    ledger.apply(Plan(version=before, actions=(action,)), 1.0)
    changed = ledger.lease(lease.id, 1.0)
    assert changed == replace(lease, limits=(limit,))
    assert ledger.read("box", 1.0).leases == (changed,)
    assert kinds(ledger)[-1] is EventKind.LEASE_LIMITS_CHANGED
    # Another plan that divides the device by the old limits is made anew.
    with pytest.raises(LedgerConflict):
        ledger.apply(Plan(version=before, actions=(action,)), 2.0)


def test_a_lease_is_granted_with_what_it_may_use_at_once(
    ledger: Ledger, wish: Wish
) -> None:
    share = Slice(
        device_id="GPU-1",
        kind=SliceKind.SHARE,
        fraction=Fraction(1, 2),
        memory_bytes=10,
    )
    limit = SliceLimit(device_id="GPU-1", fraction=Fraction(1), memory_bytes=20)
    request = ledger.submit(wish("r-1", up_to=Fraction(1)))
    granted = Grant(request=request, slices=(share,), expires_at=60.0, limits=(limit,))
    ledger.apply(Plan(version=version(ledger), actions=(granted,)), 1.0)
    (lease,) = ledger.read("box", 1.0).leases
    assert lease.limits == (limit,)
    assert lease.effective_slices == (
        replace(share, fraction=Fraction(1), memory_bytes=20),
    )


def test_a_plan_with_a_stale_token_changes_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    stale = replace(end(lease, Outcome.ABANDONED), token=lease.token + 1)
    with pytest.raises(StaleToken):
        ledger.apply(Plan(version=version(ledger), actions=(stale,)), 1.0)
    assert ledger.lease(lease.id, 1.0) == lease


def test_two_threads_with_the_same_version_make_one_grant_and_one_conflict(
    ledger: Ledger, wish: Wish
) -> None:
    ledger.submit(wish("r-1"))
    action = Grant(request=wish("r-1"), slices=(), expires_at=60.0)
    todo, together = (
        Plan(version=version(ledger), actions=(action,)),
        threading.Barrier(2),
    )
    results: list[str] = []

    def apply() -> None:
        together.wait(10)
        try:
            ledger.apply(todo, 1.0)
            results.append("granted")
        except LedgerConflict:
            results.append("conflict")

    threads = [threading.Thread(target=apply) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["conflict", "granted"]
    assert len(ledger.leases(1.0)) == 1


# -- the version -----------------------------------------------------------------------


def test_the_version_moves_when_leases_or_requests_come_and_go(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    seen = [version(ledger)]
    ledger.submit(wish("r-0"))
    seen.append(version(ledger))
    ledger.cancel("r-0", 0.0)
    seen.append(version(ledger))
    lease = grant(ledger, wish("r-1"))
    seen.append(version(ledger))
    release(ledger, lease, 1.0)
    seen.append(version(ledger))
    grant(ledger, wish("r-2", 2.0), 2.0, ends_at=62.0)
    seen.append(version(ledger, 2.0))
    seen.append(version(ledger, 100.0))  # it expires
    assert seen == sorted(set(seen))


def test_the_version_rests_when_a_lease_changes_but_keeps_its_slices(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = version(ledger)
    ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 1.0, verified=True)
    ledger.renew(lease.id, lease.token, 2.0, 90.0)
    ledger.extend(lease.id, lease.token, 3.0, 900.0)
    ledger.bind(lease.id, lease.token, 4.0, conditions=NOTED, active_at=3.0)
    ledger.touch([lease.id], 4.0)
    ledger.step(lease.id, lease.token, LeaseTransition.SUSPEND, 5.0)
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, 6.0)
    assert version(ledger, 7.0) == before


def test_what_others_have_set_meanwhile_stays(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    near = new_condition(ConditionKind.MEMORY_PRESSURE, "38 of 40 GiB", 1.0)
    ledger.bind(lease.id, lease.token, 1.0, conditions=ConditionUpdate(put=(near,)))
    later = ledger.bind(lease.id, lease.token, 2.0, conditions=NOTED)
    assert later.conditions == (near, *NOTED.put)
    cleared = ConditionUpdate(clear=frozenset({ConditionKind.MEMORY_PRESSURE}))
    ledger.bind(lease.id, lease.token, 3.0, conditions=cleared)
    assert ledger.lease(lease.id, 3.0).conditions == NOTED.put


# -- a lease's life --------------------------------------------------------------------


def test_a_step_advances_the_lease_and_keeps_the_changes(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    changes: dict[str, Any] = {
        "verified": True,
        "enforced_by": Enforcement.L1,
    }
    active = ledger.step(
        lease.id,
        lease.token,
        LeaseTransition.ACTIVATE,
        2.0,
        conditions=NOTED,
        **changes,
    )
    assert active == replace(
        lease, state=LeaseState.ACTIVE, conditions=NOTED.put, **changes
    )
    assert ledger.lease(lease.id, 2.0) == active
    assert kinds(ledger)[-1] is EventKind.LEASE_ACTIVATED


def test_a_lease_found_otherwise_than_granted_is_an_event(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    seen = new_condition(ConditionKind.NOT_ENFORCED, "sees 2 GPUs", 2.0)
    ledger.step(
        lease.id,
        lease.token,
        LeaseTransition.ACTIVATE,
        2.0,
        verified=False,
        conditions=ConditionUpdate(put=(seen,)),
    )
    assert kinds(ledger)[-2:] == [
        EventKind.LEASE_ACTIVATED,
        EventKind.LEASE_NOT_ENFORCED,
    ]
    assert ledger.events()[-1].detail == "not enforced: sees 2 GPUs"


def test_suspending_and_resuming_are_events(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    for step in (
        LeaseTransition.ACTIVATE,
        LeaseTransition.SUSPEND,
        LeaseTransition.RESUME,
    ):
        ledger.step(lease.id, lease.token, step, 1.0)
    assert kinds(ledger)[-2:] == [EventKind.LEASE_SUSPENDED, EventKind.LEASE_RESUMED]


def test_where_the_state_of_a_lease_is_goes_with_it(ledger: Ledger, wish: Wish) -> None:
    lease = resident(ledger, wish)
    assert ledger.lease(lease.id, 1.0).residence == DeviceState(
        active_at=0.5, note="äöü"
    )
    version = ledger.read("box", 1.0).version
    assert (
        ledger.update_device_state(
            lease.id, lease.token, 1.0, lambda one: cell_begins(one, 1.0)
        ).state
        is LeaseState.ACTIVE
    )
    assert ledger.read("box", 1.0).version == version + 1
    assert ledger.update_device_state(
        lease.id, lease.token, 1.0, lambda one: one
    ).residence == DeviceState(active_at=1.0, note="äöü", is_busy=True)
    assert ledger.read("box", 1.0).version == version + 1


def test_a_state_that_moves_takes_its_lease_along_and_says_so(
    ledger: Ledger, wish: Wish
) -> None:
    lease = resident(ledger, wish)

    def move(direction: TransferDirection) -> None:
        action = TransferAction(
            lease_id=lease.id, token=lease.token, direction=direction
        )
        ledger.apply(
            Plan(version=ledger.read("box", 1.0).version, actions=(action,)), 1.0
        )

    move(TransferDirection.SUSPEND)
    with pytest.raises(LedgerConflict):
        move(TransferDirection.SUSPEND)
    parked = ledger.update_device_state(
        lease.id,
        lease.token,
        2.0,
        lambda one: suspended(one, state_bytes=5, tier=SuspendMethod.OFFLOAD),
    )
    assert (parked.state, parked.residence and parked.residence.state_bytes) == (
        LeaseState.SUSPENDED,
        5,
    )
    move(TransferDirection.RESUME)
    back = ledger.update_device_state(
        lease.id, lease.token, 3.0, lambda one: resumed(one, 3.0)
    )
    assert (back.state, ledger.lease(lease.id, 3.0)) == (LeaseState.ACTIVE, back)
    lost = ledger.update_device_state(
        lease.id, lease.token, 4.0, lambda one: mark_lost(one, "restore failed")
    )
    assert lost.is_live
    assert kinds(ledger)[-3:] == [
        EventKind.LEASE_SUSPENDED,
        EventKind.LEASE_RESUMED,
        EventKind.LEASE_STATE_LOST,
    ]


def test_a_step_that_does_not_apply_to_a_state_changes_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = resident(ledger, wish)
    with pytest.raises(LeaseError, match="cannot be suspended"):
        ledger.update_device_state(
            lease.id,
            lease.token,
            2.0,
            lambda one: suspended(one, state_bytes=5, tier=SuspendMethod.OFFLOAD),
        )
    with pytest.raises(StaleToken):
        ledger.update_device_state(
            lease.id, lease.token + 1, 2.0, lambda one: mark_lost(one, "no")
        )
    assert ledger.lease(lease.id, 2.0) == lease
    plain = grant(ledger, wish("r-2", spec="1/4"))
    assert (
        ledger.update_device_state(
            plain.id, plain.token, 2.0, lambda one: mark_lost(one, "no")
        )
        == plain
    )


def resident(ledger: Ledger, wish: Wish) -> Lease:
    """An active lease whose holder may be suspended."""
    request = ledger.submit(wish("r-1"))
    slices = (
        Slice(
            device_id="G0",
            kind=SliceKind.SHARE,
            fraction=Fraction(1, 2),
            memory_bytes=40,
            uuid="G0",
        ),
    )
    home = DeviceState(active_at=0.5, note="äöü")
    grant = Grant(request=request, slices=slices, expires_at=60.0, residence=home)
    ledger.apply(Plan(version=ledger.read("box", 0.0).version, actions=(grant,)), 0.0)
    lease = ledger.leases(0.0)[0]
    return ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 0.5)


def test_a_releasing_lease_holds_its_slices_until_it_is_finished(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    assert (
        ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, 1.0).state
        is LeaseState.RELEASING
    )
    assert len(ledger.leases(1.0)) == 1
    ended = ledger.step(lease.id, lease.token, LeaseTransition.FINISH, 2.0)
    assert (ended.state, ended.outcome, ended.ended_at) == (
        LeaseState.ENDED,
        Outcome.RELEASED,
        2.0,
    )
    assert ledger.leases(2.0) == ()
    assert kinds(ledger)[-1] is EventKind.LEASE_RELEASED


@pytest.mark.parametrize("step", [LeaseTransition.RELEASE, LeaseTransition.FINISH])
def test_releasing_what_is_released_returns_it_unchanged(
    ledger: Ledger, wish: Wish, grant: Granter, step: LeaseTransition
) -> None:
    lease = grant(ledger, wish("r-1"))
    ended, before = release(ledger, lease, 1.0), len(ledger.events())
    assert ledger.step(lease.id, lease.token, step, 9.0) == ended
    assert len(ledger.events()) == before


def test_a_step_not_in_the_table_is_refused_and_changes_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = ledger.events()
    with pytest.raises(InvalidTransition):
        ledger.step(
            lease.id, lease.token, LeaseTransition.RESUME, 1.0, conditions=NOTED
        )
    assert ledger.lease(lease.id, 1.0) == lease
    assert ledger.events() == before


@pytest.mark.parametrize("change", ["token", "slices", "expires_at", "nonsense"])
def test_only_the_named_fields_may_be_changed(
    ledger: Ledger, wish: Wish, grant: Granter, change: str
) -> None:
    lease = grant(ledger, wish("r-1"))
    with pytest.raises(TypeError, match=change):
        ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 1.0, **{change: 1})
    with pytest.raises(TypeError, match="verified"):
        ledger.bind(lease.id, lease.token, 1.0, verified=True)
    assert ledger.lease(lease.id, 1.0) == lease


CALLS: dict[str, Callable[[Ledger, str, int, float], object]] = {
    "step": lambda ledger, lease_id, token, now: ledger.step(
        lease_id, token, LeaseTransition.ACTIVATE, now
    ),
    "release": lambda ledger, lease_id, token, now: ledger.step(
        lease_id, token, LeaseTransition.RELEASE, now
    ),
    "renew": lambda ledger, lease_id, token, now: ledger.renew(
        lease_id, token, now, now + 60
    ),
    "extend": lambda ledger, lease_id, token, now: ledger.extend(
        lease_id, token, now, now + 60
    ),
    "bind": lambda ledger, lease_id, token, now: ledger.bind(
        lease_id, token, now, conditions=NOTED
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_stale_token_changes_nothing(
    ledger: Ledger, wish: Wish, grant: Granter, call: str
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = ledger.events()
    for token in (lease.token - 1, lease.token + 1, 2**80):
        with pytest.raises(StaleToken):
            CALLS[call](ledger, lease.id, token, 1.0)
    assert ledger.lease(lease.id, 1.0) == lease
    assert ledger.events() == before


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "step",
    [
        LeaseTransition.EXPIRE,
        LeaseTransition.PREEMPT,
        LeaseTransition.FAIL,
        LeaseTransition.REAP,
        LeaseTransition.RECLAIM,
        LeaseTransition.LAPSE,
    ],
)
def test_a_lease_that_ended_against_its_holders_will_is_lost(
    ledger: Ledger, wish: Wish, grant: Granter, call: str, step: LeaseTransition
) -> None:
    lease = grant(ledger, wish("r-1"))
    ended = ledger.step(lease.id, lease.token, step, 1.0)
    with pytest.raises(LeaseLost) as lost:
        CALLS[call](ledger, lease.id, lease.token, 2.0)
    assert ended.outcome is not None
    assert lost.value.facts == {"lease_id": lease.id, "outcome": ended.outcome.value}
    assert ledger.lease(lease.id, 2.0) == ended


@pytest.mark.parametrize("call", ["renew", "extend", "bind"])
def test_a_released_lease_cannot_be_prolonged(
    ledger: Ledger, wish: Wish, grant: Granter, call: str
) -> None:
    lease = grant(ledger, wish("r-1"))
    ended = release(ledger, lease, 1.0)
    with pytest.raises(LeaseLost):
        CALLS[call](ledger, lease.id, lease.token, 2.0)
    assert ledger.lease(lease.id, 2.0) == ended


def test_renewing_moves_the_time_but_never_beyond_the_end(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=100.0)
    assert ledger.renew(lease.id, lease.token, 30.0, 90.0).expires_at == 90.0
    assert ledger.renew(lease.id, lease.token, 80.0, 140.0).expires_at == 100.0
    assert ledger.lease(lease.id, 99.9).is_live
    assert ledger.lease(lease.id, 100.0).outcome is Outcome.EXPIRED


def test_a_notice_runs_on_for_as_long_as_nobody_could_renew(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    notice = Notice(kind=NoticeKind.PREEMPT, at=50.0, ends_at=80.0, request_id="r-2")
    ledger.bind(lease.id, lease.token, 50.0, notice=notice)
    assert ledger.renew(lease.id, lease.token, 55.0, 115.0).notice == notice
    before = version(ledger, 300.0)
    renewed = ledger.renew(lease.id, lease.token, 315.0, 375.0)
    assert renewed.notice == replace(notice, ends_at=280.0)
    assert version(ledger, 315.0) > before, "plans that went by it are over"


def test_renewing_is_not_an_event(ledger: Ledger, wish: Wish, grant: Granter) -> None:
    lease = grant(ledger, wish("r-1"))
    before = ledger.events()
    ledger.renew(lease.id, lease.token, 30.0, 90.0)
    assert ledger.events() == before


def test_extending_moves_the_end_or_takes_it_away(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=50.0)
    assert ledger.extend(lease.id, lease.token, 10.0, 7210.0).ends_at == 7210.0
    assert (ledger.events()[-1].kind, ledger.events()[-1].detail) == (
        EventKind.LEASE_EXTENDED,
        "ends in 2 h",
    )
    extended = ledger.extend(lease.id, lease.token, 10.0, 90.0, expires_at=120.0)
    assert (extended.ends_at, extended.expires_at) == (90.0, 90.0)
    assert ledger.extend(lease.id, lease.token, 10.0, None).ends_at is None
    assert ledger.lease(lease.id, 95.0).is_live


def test_binding_changes_the_holder_without_a_step(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    holder = replace(lease.holder, pid=77, root_pid=78)
    bound = ledger.bind(lease.id, lease.token, 1.0, holder=holder)
    assert bound == ledger.lease(lease.id, 1.0) == replace(lease, holder=holder)


def test_a_remark_is_an_event_and_may_change_the_conditions(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = version(ledger)
    remarked = ledger.remark(
        lease.id,
        lease.token,
        1.0,
        EventKind.LEASE_OVER_MEMORY,
        "by far",
        conditions=NOTED,
    )
    assert remarked == ledger.lease(lease.id, 1.0)
    assert remarked == replace(lease, conditions=NOTED.put)
    assert (
        ledger.remark(
            lease.id, lease.token, 2.0, EventKind.LEASE_FAULTED, "it broke"
        ).conditions
        == NOTED.put
    )
    told = [
        (event.kind, event.at, event.detail, event.lease_id)
        for event in ledger.events()[-2:]
    ]
    assert told == [
        (EventKind.LEASE_OVER_MEMORY, 1.0, "by far", lease.id),
        (EventKind.LEASE_FAULTED, 2.0, "it broke", lease.id),
    ]
    assert version(ledger) == before, "no plan depends on it"
    with pytest.raises(StaleToken):
        ledger.remark(
            lease.id, lease.token + 1, 3.0, EventKind.LEASE_FAULTED, "it broke"
        )


# -- time ------------------------------------------------------------------------------

LOOKS: dict[str, Callable[[Ledger, str, float], object]] = {
    "read": lambda ledger, lease_id, now: ledger.read("box", now),
    "lease": lambda ledger, lease_id, now: ledger.lease(lease_id, now),
    "leases": lambda ledger, lease_id, now: ledger.leases(now),
    "all leases": lambda ledger, lease_id, now: ledger.leases(now, live=False),
}


@pytest.mark.parametrize("look", LOOKS)
def test_no_reading_sees_a_lease_alive_past_its_end(
    ledger: Ledger, wish: Wish, grant: Granter, look: str
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    LOOKS[look](ledger, lease.id, 59.9)
    assert EventKind.LEASE_EXPIRED not in kinds(ledger)
    LOOKS[look](ledger, lease.id, 75.0)
    ended = ledger.lease(lease.id, 75.0)
    assert (ended.state, ended.outcome) == (LeaseState.ENDED, Outcome.EXPIRED)
    assert ledger.leases(75.0) == ledger.read("box", 75.0).leases == ()


@pytest.mark.parametrize("call", CALLS)
def test_a_lease_past_its_end_is_lost_even_if_nobody_had_noticed(
    ledger: Ledger, wish: Wish, grant: Granter, call: str
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    with pytest.raises(LeaseLost) as lost:
        CALLS[call](ledger, lease.id, lease.token, 60.0)
    assert lost.value.facts["outcome"] == "expired"
    assert (
        kinds(ledger)[-1] is EventKind.LEASE_EXPIRED
    )  # kept, although the call itself was refused


def test_an_expired_lease_ended_when_its_time_was_up_not_when_that_was_noticed(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=40.0)
    ledger.submit(wish("r-2", 1000.0))
    event = next(
        event for event in ledger.events() if event.kind is EventKind.LEASE_EXPIRED
    )
    assert ledger.lease(lease.id, 1000.0).ended_at == event.at == 40.0


def test_a_lease_expires_once(ledger: Ledger, wish: Wish, grant: Granter) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    for now in (60.0, 61.0, 62.0):
        ledger.read("box", now)
    ledger.step(
        grant(ledger, wish("r-2", 63.0), 63.0).id,
        lease.token + 1,
        LeaseTransition.ACTIVATE,
        64.0,
    )
    assert kinds(ledger).count(EventKind.LEASE_EXPIRED) == 1


def test_a_plan_may_end_what_has_expired_since(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    seen = version(ledger, 59.0)
    events = ledger.apply(
        Plan(version=seen, actions=(end(lease, Outcome.ABANDONED),)), 61.0
    )
    assert [event.kind for event in events] == [EventKind.LEASE_EXPIRED]
    assert ledger.lease(lease.id, 61.0).outcome is Outcome.EXPIRED


# -- lists -----------------------------------------------------------------------------


def test_leases_come_newest_first_live_or_all_by_host_and_no_more_than_asked(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    first, second, third = (
        grant(ledger, wish(f"r-{n}", host=host))
        for n, host in enumerate(("box", "box", "other"))
    )
    ended = release(ledger, first, 1.0)
    assert ledger.leases(2.0) == (third, second)
    assert ledger.leases(2.0, live=False) == (third, second, ended)
    assert ledger.leases(2.0, host="box") == (second,)
    assert ledger.leases(2.0, host="box", live=False, limit=1) == (second,)
    assert ledger.leases(2.0, live=False, limit=2) == (third, second)
    assert ledger.leases(2.0, limit=-1) == ()


def test_events_are_numbered_from_one_and_can_be_read_on(
    ledger: Ledger, wish: Wish
) -> None:
    for number in range(5):
        ledger.submit(wish(f"r-{number}"))
    events = ledger.events()
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert [event.request_id for event in events] == [
        f"r-{number}" for number in range(5)
    ]
    assert ledger.events(after=3) == events[3:]
    assert ledger.events(after=1, limit=2) == events[1:3]
    assert ledger.events(after=2**70) == ()
    assert ledger.events(after=-1) == events


def test_apply_returns_the_events_that_it_writes(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    written = ledger.apply(
        Plan(version=version(ledger), actions=(end(lease, Outcome.ABANDONED),)), 5.0
    )
    (event,) = ledger.events(after=2)
    unsigned = {"user": "", "uid": None, "pid": None, "command": "", "host": ""}
    assert written == (replace(event, sequence=0, **unsigned),)


def test_text_no_database_can_hold_does_not_hinder_a_write(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    request = wish("r-1")
    lease = grant(
        ledger,
        replace(request, holder=replace(request.holder, label="a\0b\ud800.ipynb")),
    )
    failed = new_condition(ConditionKind.FAILED, "driver said \0\ud800", 1.0)
    update = ConditionUpdate(put=(failed,))
    ledger.step(lease.id, lease.token, LeaseTransition.FAIL, 1.0, conditions=update)
    assert ledger.lease(lease.id, 1.0).holder.label == "a\0b\ud800.ipynb"
    (kept,) = ledger.lease(lease.id, 1.0).conditions
    assert kept.message.startswith("driver said ")


def test_closing_twice_is_allowed(ledger: Ledger, wish: Wish) -> None:
    ledger.submit(wish("r-1"))
    ledger.close()
    ledger.close()
