"""What a ledger promises of use: notices, accounts and reservations, and when leases
were used; on every ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseTransition,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.plan import Action, End, Notify, Plan, WithdrawNotice
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.usage_history import (
    Account,
    charged,
    week_of,
    week_start,
)
from jupyter_aistack.exceptions import LeaseNotFound, LedgerConflict, StaleToken
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]

IDLE = Notice(kind=NoticeKind.IDLE, at=10.0, ends_at=40.0)
NEEDED = Notice(kind=NoticeKind.PREEMPT, at=10.0, ends_at=30.0, request_id="r-9")


def version(ledger: Ledger, now: float = 0.0) -> int:
    return ledger.read("box", now).version


def apply(ledger: Ledger, action: Action, now: float) -> tuple[Event, ...]:
    return ledger.apply(Plan(version=version(ledger, now), actions=(action,)), now)


def notify(
    ledger: Ledger, lease: Lease, notice: Notice, now: float = 10.0
) -> tuple[Event, ...]:
    return apply(
        ledger,
        Notify(lease_id=lease.id, token=lease.token, notice=notice, detail="why"),
        now,
    )


def reclaim(lease: Lease) -> End:
    return End(
        lease_id=lease.id,
        token=lease.token,
        outcome=Outcome.RECLAIMED,
        detail="nobody used it",
    )


# -- notices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notice", [IDLE, NEEDED, replace(NEEDED, at=0.1 + 0.2, ends_at=1e9 / 3)]
)
def test_a_notice_is_written_with_its_event_and_moves_the_version(
    ledger: Ledger, wish: Wish, grant: Granter, notice: Notice
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = version(ledger)
    (event,) = notify(ledger, lease, notice)
    assert (event.kind, event.lease_id, event.at, event.detail) == (
        EventKind.LEASE_NOTICED,
        lease.id,
        10.0,
        "why",
    )
    assert ledger.lease(lease.id, 10.0) == replace(lease, notice=notice)
    assert ledger.read("box", 10.0).leases == (replace(lease, notice=notice),)
    assert version(ledger, 10.0) > before


def test_a_notice_that_is_withdrawn_is_gone_with_its_event_and_moves_the_version(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    notify(ledger, lease, NEEDED)
    before = version(ledger, 11.0)
    (event,) = apply(
        ledger,
        WithdrawNotice(lease_id=lease.id, token=lease.token, detail="room elsewhere"),
        11.0,
    )
    assert (event.kind, event.lease_id, event.detail) == (
        EventKind.LEASE_NOTICE_WITHDRAWN,
        lease.id,
        "room elsewhere",
    )
    assert ledger.lease(lease.id, 11.0) == lease
    assert version(ledger, 11.0) > before


def test_withdrawing_where_there_is_no_notice_is_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = version(ledger, 1.0)
    assert (
        apply(ledger, WithdrawNotice(lease_id=lease.id, token=lease.token), 1.0) == ()
    )
    assert version(ledger, 1.0) == before


@pytest.mark.parametrize(
    "action",
    [
        lambda key: Notify(**key, notice=NEEDED),
        lambda key: WithdrawNotice(**key),
        lambda key: End(**key, outcome=Outcome.RECLAIMED),
    ],
)
def test_what_a_plan_says_about_an_ended_lease_is_left_out_but_not_with_a_stale_token(
    ledger: Ledger,
    wish: Wish,
    grant: Granter,
    action: Callable[[dict[str, Any]], Action],
) -> None:
    lease = grant(ledger, wish("r-1"))
    with pytest.raises(StaleToken):
        apply(ledger, action({"lease_id": lease.id, "token": lease.token + 1}), 1.0)
    ended = ledger.step(lease.id, lease.token, LeaseTransition.FAIL, 2.0)
    assert (
        apply(ledger, action({"lease_id": lease.id, "token": lease.token}), 3.0) == ()
    )
    assert ledger.lease(lease.id, 3.0) == ended


def test_a_plan_that_reclaims_a_lease_used_meanwhile_is_refused(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    notify(ledger, lease, IDLE)
    seen = version(ledger, 40.0)
    ledger.bind(lease.id, lease.token, 40.0, active_at=39.0)  # leaves the version alone
    with pytest.raises(LedgerConflict, match="was used meanwhile"):
        ledger.apply(Plan(version=seen, actions=(reclaim(lease),)), 40.0)
    assert ledger.lease(lease.id, 40.0).is_live


def test_a_lease_that_nobody_used_is_reclaimed(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    ledger.touch([lease.id], 5.0)
    notify(ledger, lease, IDLE)
    (event,) = apply(ledger, reclaim(lease), 40.0)
    assert (event.kind, event.detail) == (EventKind.LEASE_RECLAIMED, "nobody used it")
    ended = ledger.lease(lease.id, 40.0)
    assert (ended.outcome, ended.ended_at, ended.active_at) == (
        Outcome.RECLAIMED,
        40.0,
        5.0,
    )


def test_a_plan_that_calls_a_lease_idle_that_was_used_meanwhile_is_refused(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    seen = version(ledger)
    ledger.touch([lease.id], 10.5)  # after the plan was made, at 10
    with pytest.raises(LedgerConflict, match="was used meanwhile"):
        ledger.apply(
            Plan(
                version=seen,
                actions=(Notify(lease_id=lease.id, token=lease.token, notice=IDLE),),
            ),
            11.0,
        )
    assert ledger.lease(lease.id, 11.0).notice is None
    notify(ledger, lease, NEEDED, 11.0)  # somebody needs the room all the same


def test_binding_a_notice_moves_the_version(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    before = version(ledger)
    bound = ledger.bind(lease.id, lease.token, 1.0, notice=NEEDED, active_at=1.0)
    assert (
        bound
        == ledger.lease(lease.id, 1.0)
        == replace(lease, notice=NEEDED, active_at=1.0)
    )
    assert version(ledger) > before
    assert ledger.bind(lease.id, lease.token, 2.0, notice=None, active_at=None) == lease


# -- use -------------------------------------------------------------------------------


def test_touching_moves_the_last_use_forward_only_and_is_no_event(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease, other = grant(ledger, wish("r-1")), grant(ledger, wish("r-2"))
    before = (version(ledger), ledger.events())
    assert lease.active_at is None
    ledger.touch([lease.id], 5.25)
    ledger.touch([lease.id], 3.0)
    assert ledger.lease(lease.id, 6.0) == replace(lease, active_at=5.25)
    assert ledger.lease(other.id, 6.0) == other
    ledger.touch((lease.id, other.id), 7.0)
    assert [one.active_at for one in ledger.read("box", 7.0).leases] == [7.0, 7.0]
    assert (version(ledger, 7.0), ledger.events()) == before


def test_touching_what_has_ended_or_never_was_is_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    ended, lease = grant(ledger, wish("r-1")), grant(ledger, wish("r-2"))
    ended = ledger.step(ended.id, ended.token, LeaseTransition.FAIL, 1.0)
    ledger.touch([], 2.0)
    ledger.touch(["l-none", "l-\0", "l-\ud800", ended.id, lease.id, lease.id], 2.0)
    assert ledger.lease(ended.id, 2.0) == ended
    assert ledger.lease(lease.id, 2.0).active_at == 2.0


def test_touching_does_not_keep_a_lease_alive(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    ledger.touch([lease.id], 60.0)
    assert ledger.lease(lease.id, 60.0).outcome is Outcome.EXPIRED
    assert ledger.lease(lease.id, 60.0).active_at is None


def test_touching_an_idle_lease_withdraws_its_notice_and_moves_the_version(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    notify(ledger, lease, IDLE)
    before = version(ledger, 12.0)
    ledger.touch([lease.id], 12.0)
    assert ledger.lease(lease.id, 12.0) == replace(lease, active_at=12.0)
    assert (ledger.events()[-1].kind, ledger.events()[-1].at) == (
        EventKind.LEASE_NOTICE_WITHDRAWN,
        12.0,
    )
    assert version(ledger, 12.0) > before
    with pytest.raises(LedgerConflict):  # made before
        ledger.apply(Plan(version=before, actions=(reclaim(lease),)), 40.0)


def test_touching_a_lease_whose_room_is_needed_leaves_its_notice(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    notify(ledger, lease, NEEDED)
    before = (version(ledger, 12.0), ledger.events())
    ledger.touch([lease.id], 12.0)
    assert ledger.lease(lease.id, 12.0) == replace(lease, notice=NEEDED, active_at=12.0)
    assert (version(ledger, 12.0), ledger.events()) == before


# -- accounts --------------------------------------------------------------------------


def finish(ledger: Ledger, lease: Lease, now: float) -> None:
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, now)
    ledger.step(lease.id, lease.token, LeaseTransition.FINISH, now)


ENDS: dict[str, Callable[[Ledger, Lease], object]] = {
    "released": lambda ledger, lease: finish(ledger, lease, 50.0),
    "failed": lambda ledger, lease: ledger.step(
        lease.id, lease.token, LeaseTransition.FAIL, 50.0
    ),
    "reaped by a step": lambda ledger, lease: ledger.step(
        lease.id, lease.token, LeaseTransition.REAP, 50.0
    ),
    "preempted": lambda ledger, lease: apply(
        ledger,
        End(lease_id=lease.id, token=lease.token, outcome=Outcome.PREEMPTED),
        50.0,
    ),
    "reclaimed": lambda ledger, lease: apply(ledger, reclaim(lease), 50.0),
    "expired, noticed by a reader": lambda ledger, lease: ledger.read("box", 99.0),
    "expired, noticed by a writer": lambda ledger, lease: ledger.submit(
        replace(lease_request(ledger, lease), id="r-x")
    ),
    "expired, noticed by a plan": lambda ledger, lease: ledger.apply(
        Plan(version=version(ledger)), 99.0
    ),
}


def lease_request(ledger: Ledger, lease: Lease) -> Request:
    return replace(ledger.request(lease.request_id), submitted_at=99.0)


@pytest.mark.parametrize("way", ENDS)
def test_every_end_of_a_lease_is_charged_once_to_its_user_and_queue(
    ledger: Ledger, wish: Wish, grant: Granter, way: str
) -> None:
    lease = grant(ledger, wish("r-1", queue="night"), 5.0, ends_at=65.0)
    assert ledger.read("box", 5.0).accounts == ()
    ENDS[way](ledger, lease)
    ended = ledger.lease(lease.id, 99.0)
    assert ended.ended_at == (65.0 if "expired" in way else 50.0)
    expected = charged(Account(user="ann", queue="night"), ended, WEEK_SECONDS)
    assert expected.decayed > 0
    for now in (99.0, 200.0):
        assert ledger.read("box", now).accounts == (expected,)


def test_ends_add_up_per_user_and_queue_on_all_hosts(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    start = week_start(2900)
    bob = wish("r-4")
    bob = replace(bob, holder=replace(bob.holder, user="bob"))
    requests = [wish("r-1"), wish("r-2", host="other"), wish("r-3", queue="night"), bob]
    for number, request in enumerate(requests):
        ledger.step(
            grant(ledger, request, start).id,
            number + 1,
            LeaseTransition.FAIL,
            start + 40.0,
        )
    accounts = ledger.read("box", start + 40.0).accounts
    assert accounts == ledger.read("other", start + 40.0).accounts
    assert [(one.user, one.queue) for one in accounts] == [
        ("ann", "default"),
        ("ann", "night"),
        ("bob", "default"),
    ]
    assert [one.week_seconds for one in accounts] == [
        40.0,
        20.0,
        20.0,
    ]  # halves of a device, for 40 s each


def test_what_is_charged_decays_with_the_ledgers_half_life(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    ledger.half_life_seconds = 30.0
    ledger.step(grant(ledger, wish("r-1")).id, 1, LeaseTransition.FAIL, 30.0)
    ledger.step(
        grant(ledger, wish("r-2", 60.0), 60.0).id, 2, LeaseTransition.FAIL, 60.0
    )
    (account,) = ledger.read("box", 60.0).accounts
    whole = (
        0.5 * (1 - 0.5) / (math.log(2) / 30.0)
    )  # half a device over one half-life, at its end
    assert account.decayed == pytest.approx(whole / 2)  # and one half-life later
    assert account.at == 60.0


def test_a_week_counts_its_own_use(ledger: Ledger, wish: Wish, grant: Granter) -> None:
    monday = week_start(2900)
    for number, start in enumerate((monday - 100.0, monday - 20.0)):
        lease = grant(ledger, wish(f"r-{number}", start), start)
        ledger.step(lease.id, lease.token, LeaseTransition.FAIL, start + 30.0)
    (account,) = ledger.read("box", monday + 10.0).accounts
    assert (account.week, account.week_seconds) == (week_of(monday), 5.0)


def test_a_refused_end_charges_nothing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    with pytest.raises(StaleToken):
        ledger.step(lease.id, lease.token + 1, LeaseTransition.FAIL, 1.0)
    assert ledger.read("box", 1.0).accounts == ()


def test_a_user_no_database_can_name_does_not_hinder_an_end(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    request = wish("r-1")
    request = replace(request, holder=replace(request.holder, user="a\0nn\ud800"))
    ledger.step(grant(ledger, request).id, 1, LeaseTransition.FAIL, 1.0)
    ledger.step(
        grant(ledger, replace(request, id="r-2")).id, 2, LeaseTransition.FAIL, 1.0
    )
    assert len(ledger.read("box", 1.0).accounts) == 1


# -- reservations ----------------------------------------------------------------------


def hold(reservation_id: str = "v-1", **fields: Any) -> Reservation:
    known: dict[str, Any] = {
        "name": "Übung 🎓",
        "queue": "class",
        "spec": parse_spec("1/8"),
        "count": 20,
        "starts_at": 100.25,
        "ends_at": 200.5,
        "host": "box",
    }
    return Reservation(id=reservation_id, **known | fields)


def test_a_reservation_is_read_back_field_by_field_with_its_event(
    ledger: Ledger,
) -> None:
    wanted = hold(
        is_weekly=True,
        created_by="root",
        spec=parse_spec("gpu:1/3x2,cpu:8,mem:64GiB,model:a100|h100"),
    )
    before = version(ledger)
    assert ledger.reserve(wanted, 7.0) == wanted
    assert ledger.read("box", 8.0).reservations == (wanted,)
    (event,) = ledger.events()
    assert (event.kind, event.at, event.detail) == (
        EventKind.RESERVATION_MADE,
        7.0,
        "Übung 🎓",
    )
    assert version(ledger) > before


def test_reserving_the_same_id_twice_returns_the_first_unchanged(
    ledger: Ledger,
) -> None:
    first = ledger.reserve(hold(), 1.0)
    before = version(ledger)
    assert ledger.reserve(hold(count=3), 2.0) == first
    assert ledger.read("box", 2.0).reservations == (first,)
    assert (version(ledger), len(ledger.events())) == (before, 1)


def test_a_reservation_taken_back_is_gone_with_its_event(ledger: Ledger) -> None:
    wanted, other = ledger.reserve(hold(), 1.0), ledger.reserve(hold("v-2"), 1.0)
    before = version(ledger)
    assert ledger.unreserve("v-1", 2.0) == wanted
    assert ledger.read("box", 2.0).reservations == (other,)
    last = ledger.events()[-1]
    assert (last.kind, last.at, last.detail) == (
        EventKind.RESERVATION_CANCELLED,
        2.0,
        wanted.name,
    )
    assert version(ledger) > before


@pytest.mark.parametrize("strange", ["v-none", "", "v\0", "v-\ud800", "v-1' OR '1'='1"])
def test_a_reservation_that_is_not_there_is_not_found(
    ledger: Ledger, strange: str
) -> None:
    wanted = ledger.reserve(hold(), 1.0)
    with pytest.raises(LeaseNotFound, match="reservation_id: ") as refused:
        ledger.unreserve(strange, 2.0)
    assert refused.value.facts["field"] == "reservation_id"
    assert ledger.read("box", 2.0).reservations == (wanted,)


def test_only_the_reservations_of_the_host_that_are_not_over_are_read_first_to_start_first(
    ledger: Ledger,
) -> None:
    late, early = (
        ledger.reserve(hold("v-1", starts_at=150.0), 1.0),
        ledger.reserve(hold("v-2"), 1.0),
    )
    weekly = ledger.reserve(
        hold("v-3", starts_at=50.0, ends_at=60.0, is_weekly=True), 1.0
    )
    ledger.reserve(hold("v-4", host="other"), 1.0)
    assert ledger.read("box", 1.0).reservations == (weekly, early, late)
    assert ledger.read("box", 200.25).reservations == (weekly, early, late)
    assert ledger.read("box", 200.5).reservations == (weekly,)
    assert ledger.read("box", 9e9).reservations == (weekly,)
