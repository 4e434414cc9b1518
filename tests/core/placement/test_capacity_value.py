from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.placement.capacity_value import (
    capacity_value,
    rank,
    unit_prices,
)
from jupyter_aistack.core.placement.demand import WHOLE, Demand, DemandMix


def mix(*shares: int) -> DemandMix:
    return DemandMix(
        Demand(cpu_milli=10 * share, memory_mib=share, gpus=1, share_milli=share)
        for share in shares
    )


def test_thirds_are_worth_a_third_and_what_they_leave_is_worth_nothing() -> None:
    worth = capacity_value(mix(320))
    assert worth.value[worth.level(350)] == pytest.approx(1 / 3)
    assert worth.value[worth.level(310)] == 0
    assert [worth.value_lost(free, 320) for free in (350, 530, 1000)] == pytest.approx(
        [1 / 3] * 3
    )


def test_a_share_that_has_a_partner_is_worth_the_rest() -> None:
    worth = capacity_value(mix(650, 320, 650, 320))
    assert worth.value[worth.level(1000)] == 1
    assert worth.value[worth.level(650)] + worth.value[
        worth.level(320)
    ] == pytest.approx(1)


def test_of_an_empty_mix_a_hole_is_worth_its_size() -> None:
    worth = capacity_value(DemandMix())
    assert worth.value[worth.level(250)] == pytest.approx(0.25, abs=0.005)
    assert worth.value[worth.level(WHOLE)] == 1


def test_odd_shares_are_followed_coarsely_and_thirds_stay_thirds() -> None:
    worth = capacity_value(mix(333))
    assert 3 * worth.taken(333) == worth.steps
    assert worth.value[worth.level(667)] == pytest.approx(2 / 3)


def test_the_ranking_spares_whole_gpus_and_holes_that_others_need() -> None:
    worth = capacity_value(mix(250, 500))
    assert rank(worth, [1000, 500, 250, 100], 250) == [2, 1, 0]
    assert (
        rank(capacity_value(mix(470, 320, 470, 320, 650)), [530, 1000, 350], 320)[0]
        == 2
    )


def test_needs_follow_what_will_fill_a_gpu() -> None:
    worth = capacity_value(mix(500))
    assert worth.cpu_milli[worth.level(500)] == pytest.approx(5000)
    assert worth.cpu_milli[worth.level(1000)] == pytest.approx(10000)
    assert worth.memory_mib[worth.level(400)] == 0


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 19), st.integers(1, 50), min_size=1, max_size=5))
def test_prices_are_feasible_and_no_pattern_is_worth_more_than_a_bin(
    sizes: dict[int, int],
) -> None:
    result = unit_prices(sizes, 20)
    assert set(result) == set(sizes)
    for pattern in product(*(range(20 // size + 1) for size in sizes)):
        if sum(n * size for n, size in zip(pattern, sizes, strict=True)) <= 20:
            assert (
                sum(n * result[size] for n, size in zip(pattern, sizes, strict=True))
                <= 1 + 1e-6
            )
    # Weak duality: the prices bound the bins needed from below, and the sizes' sum does
    # so too.
    assert (
        sum(result[size] * n for size, n in sizes.items())
        >= sum(size * n for size, n in sizes.items()) / 20 - 1e-3
    )
