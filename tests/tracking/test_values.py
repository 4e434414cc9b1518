"""Names, numbers and texts that every store can keep, and points it takes for new."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.tracking.values import (
    MetricSeries,
    checked_name,
    checked_number,
    checked_step,
    shortened,
)


@pytest.mark.parametrize("name", ["loss", "val/auc", "größe 1", "a.b-c_d:e", "x" * 250])
def test_names_that_stores_keep_are_taken(name: str) -> None:
    assert checked_name("metric", name) == name


@pytest.mark.parametrize(
    "name", ["", "/a", ".a", "a//b", "a/../b", "a\n", "x" * 251, 3, None]
)
def test_other_names_are_refused_by_kind(name: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^param: ") as caught:
        checked_name("param", name)
    assert caught.value.facts["field"] == "param"


@pytest.mark.parametrize("step", [True, 1.0, "1", 2**63, None])
def test_a_step_is_a_whole_number(step: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^step: "):
        checked_step(step)


def test_a_number_too_large_for_a_float_is_infinite() -> None:
    assert checked_number("loss", 10**400) == math.inf
    assert checked_number("loss", -(10**400)) == -math.inf


@pytest.mark.parametrize("value", ["1", b"1", None, [1]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^metric loss: "):
        checked_number("loss", value)


def test_a_text_is_cut_to_what_a_store_takes() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"


def test_steps_count_on_from_the_last_given() -> None:
    series = MetricSeries(name="loss")
    steps = [series.next_point(step, 0.0).step for step in (None, None, 7, None)]
    assert steps == [0, 1, 7, 8]


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_equal_points_get_time_stamps_of_their_own(value: float) -> None:
    series = MetricSeries(name="loss")
    points = [series.next_point(3, value) for _ in range(50)]
    stamps = [point.timestamp_ms for point in points]
    assert len(set(stamps)) == len(stamps)
    assert stamps == sorted(stamps)
