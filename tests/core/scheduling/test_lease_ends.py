"""The table of what ends a lease, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.core.model.lease import LeaseState, Outcome
from jupyter_aistack.core.model.plan import Grant, grant_to_lease
from jupyter_aistack.core.scheduling.lease_ends import ended_at, reason_of, why_over
from tests.fakes.world import ask

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


def test_the_reasons_tell_an_end_from_a_lease_nobody_kept() -> None:
    assert reason_of(Outcome.EXPIRED) == "lease expired"
    assert reason_of(Outcome.LAPSED).startswith("nobody kept it")
