"""The table of what ends a lease, row by row."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.lease import LeaseState, Notice, NoticeKind, Outcome
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.plan import Grant, grant_to_lease
from jupyter_aistack.core.scheduling.lease_ends import (
    after_pause,
    ended_at,
    may_end_by_notice,
    reason_of,
    why_over,
)
from tests.fakes.world import World, ask, gpus

LEASE = grant_to_lease(Grant(request=ask("r"), slices=(), expires_at=60.0), "l", 1, 0.0)
LONG_AFTER = 1e9


@pytest.mark.parametrize(
    ("now", "is_dead", "is_unvouched", "outcome"),
    [
        (LONG_AFTER, False, False, None),
        (1.0, True, False, Outcome.ABANDONED),
        (LONG_AFTER, True, True, Outcome.ABANDONED),
        (59.9, False, True, None),
        (60.0, False, True, Outcome.LAPSED),
    ],
)
def test_only_death_or_that_nobody_vouches_ends_a_lease_without_an_end(
    now: float, is_dead: bool, is_unvouched: bool, outcome: Outcome | None
) -> None:
    over = why_over(LEASE, now, is_dead=is_dead, is_unvouched=is_unvouched)
    assert over is outcome


def test_the_end_its_user_asked_for_comes_whoever_lives() -> None:
    limited = replace(LEASE, ends_at=10.0)
    calls = [
        why_over(limited, now, is_dead=False, is_unvouched=False) for now in (9.9, 10.0)
    ]
    assert calls == [None, Outcome.EXPIRED]


def test_what_is_being_released_waits_for_its_teardown_while_that_is_renewed() -> None:
    releasing = replace(LEASE, state=LeaseState.RELEASING)
    overs = [
        why_over(releasing, now, is_dead=True, is_unvouched=False)
        for now in (59.9, 60.0)
    ]
    assert overs == [None, Outcome.RELEASED]


@pytest.mark.parametrize(
    ("outcome", "at"),
    [
        (Outcome.ABANDONED, 60.0),
        (Outcome.LAPSED, 60.0),
        (Outcome.RELEASED, 60.0),
        (Outcome.PREEMPTED, 99.0),
    ],
)
def test_nobody_is_charged_for_longer_than_the_last_renewal_held(
    outcome: Outcome, at: float
) -> None:
    assert ended_at(LEASE, outcome, 99.0) == at
    assert ended_at(LEASE, outcome, 5.0) == 5.0


def test_a_notice_ends_no_lease_that_nobody_could_renew_meanwhile() -> None:
    assert may_end_by_notice(LEASE, 59.9)
    assert not may_end_by_notice(LEASE, 60.0)
    notice = Notice(kind=NoticeKind.IDLE, at=10.0, ends_at=70.0)
    noticed = replace(LEASE, notice=notice)
    assert after_pause(noticed, 60.0) == noticed
    after = after_pause(noticed, 160.0)
    assert after == replace(noticed, notice=replace(notice, ends_at=170.0))
    assert after_pause(LEASE, 160.0) == LEASE


def test_who_was_stopped_has_the_time_to_free_memory_after_the_pause() -> None:
    limit = SliceLimit(device_id="GPU-1", fraction=Fraction(1, 2), memory_bytes=40)
    lowered = replace(limit, lowered_at=50.0, lowered_from_bytes=80)
    kept = after_pause(replace(LEASE, limits=(limit, lowered)), 160.0)
    assert kept.limits == (limit, replace(lowered, lowered_at=150.0))
    assert kept.limits[1].tolerated_bytes(160.0) == 80


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (NoticeKind.PREEMPT, Outcome.PREEMPTED),
        (NoticeKind.IDLE, Outcome.RECLAIMED),
    ],
)
def test_who_was_stopped_has_the_time_of_its_notice_after_the_pause(
    kind: NoticeKind, outcome: Outcome
) -> None:
    box = World(gpus(1))
    box.submit(ask("held", "1", preemptible=True))
    box.turn()
    (lease,) = box.leases.values()
    notice = Notice(kind=kind, at=0.0, ends_at=30.0, request_id="first")
    noticed = replace(lease, notice=notice, expires_at=60.0, active_at=-9999.0)
    box.leases[lease.id] = noticed
    box.submit(ask("first", "1", priority=9))
    box.turn(75)
    assert box.holds() == {"held": "1"}
    box.leases[lease.id] = replace(noticed, expires_at=135.0)
    box.turn()
    assert box.lease_of("held").outcome is outcome


def test_the_reasons_tell_an_end_from_a_lease_nobody_kept() -> None:
    assert reason_of(Outcome.EXPIRED) == "lease expired"
    assert reason_of(Outcome.LAPSED).startswith("nobody kept it")
