from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.usage_history import (
    Account,
    charged,
    decayed_at,
    decayed_use,
    equivalents,
    used_in_week,
    week_of,
    week_start,
)
from tests.fakes.world import World, ask, gpus


def lease_from_to(start: float, end: float, spec: str = "1/2") -> Lease:
    box = World(gpus(1))
    box.submit(ask("a", spec))
    box.turn()
    return replace(box.lease_of("a"), granted_at=start, ended_at=end)


def slice_of(kind: SliceKind, fraction: str) -> Slice:
    return Slice(device_id="d", kind=kind, fraction=Fraction(fraction), memory_bytes=0)


def test_a_size_is_the_dominant_of_what_is_taken_of_gpus_and_cpus() -> None:
    assert equivalents(
        [slice_of(SliceKind.SHARE, "1/4"), slice_of(SliceKind.CPU, "1/2")]
    ) == Fraction(1, 2)
    assert (
        equivalents(
            [
                slice_of(SliceKind.GPU, "1"),
                slice_of(SliceKind.GPU, "1"),
                slice_of(SliceKind.CPU, "1/2"),
            ]
        )
        == 2
    )
    assert equivalents([]) == 0


def test_use_counts_half_after_a_half_life() -> None:
    account = charged(Account(user="ann", queue="default"), lease_from_to(0, 100), 1e9)
    assert account.decayed == pytest.approx(50, rel=1e-6)
    assert decayed_at(account, 100 + 1e9, 1e9) == pytest.approx(25, rel=1e-6)


@given(st.floats(0, 1e6), st.floats(1, 1e6), st.floats(0, 1e6), st.floats(1e3, 1e7))
def test_charging_at_the_end_is_the_same_as_having_watched_all_along(
    start: float, length: float, later: float, half_life: float
) -> None:
    end, now = start + length, start + length + later
    account = charged(
        Account(user="ann", queue="default", at=start),
        lease_from_to(start, end),
        half_life,
    )
    watched = decayed_use(Fraction(1, 2), start, end, now, half_life)
    assert decayed_at(account, now, half_life) == pytest.approx(
        watched, rel=1e-6, abs=1e-6
    )


def test_a_week_begins_on_monday_and_counts_only_what_fell_into_it() -> None:
    monday = week_start(week_of(1.7e9))
    assert monday % 86400 == 0
    assert (monday // 86400 + 4) % 7 == 1, "1970-01-01 was a Thursday"
    assert used_in_week(Fraction(1), monday - 100, monday + 50, week_of(monday)) == 50
    account = charged(
        Account(user="ann", queue="default"),
        lease_from_to(monday - 100, monday + 50),
        WEEK_SECONDS,
    )
    assert (account.week, account.week_seconds) == (week_of(monday), 25)
    again = charged(account, lease_from_to(monday + 50, monday + 150), WEEK_SECONDS)
    assert again.week_seconds == 75
    late = charged(again, lease_from_to(monday - 900, monday - 800), WEEK_SECONDS)
    assert (late.week, late.week_seconds) == (week_of(monday), 75)
    after = charged(
        again,
        lease_from_to(monday + WEEK_SECONDS, monday + WEEK_SECONDS + 10),
        WEEK_SECONDS,
    )
    assert (after.week, after.week_seconds) == (week_of(monday) + 1, 5)
