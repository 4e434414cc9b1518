"""Names, numbers and texts that every store can keep, and points it takes for new."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
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


@pytest.mark.parametrize("step", [True, 1.0, "1", 2**63, None, Decimal(1), Fraction(1)])
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


def numpy_and_torch() -> tuple[Any, Any]:
    return pytest.importorskip("numpy"), pytest.importorskip("torch")


@pytest.mark.filterwarnings("error")
def test_numbers_of_every_library_are_taken_and_without_a_warning() -> None:
    numpy, torch = numpy_and_torch()
    half = [
        numpy.float16(0.5),
        numpy.float32(0.5),
        numpy.array(0.5),
        numpy.array([[0.5]]),
        numpy.array(Decimal("0.5"), dtype=object),
        torch.tensor(0.5),
        torch.tensor([0.5], dtype=torch.bfloat16),
        torch.tensor(0.5, requires_grad=True) * 1,
        Decimal("0.5"),
        Fraction(1, 2),
    ]
    assert [checked_number("loss", value) for value in half] == [0.5] * len(half)
    true = [True, numpy.bool_(True), torch.tensor(True), numpy.int64(1), numpy.uint8(1)]
    assert [checked_number("loss", value) for value in true] == [1.0] * len(true)
    assert math.isnan(checked_number("loss", Decimal("NaN")))


@pytest.mark.filterwarnings("error")
def test_what_only_looks_like_a_number_is_refused_by_name() -> None:
    numpy, torch = numpy_and_torch()
    wrong = [
        bytearray(b"1"),
        1j,
        Decimal("sNaN"),
        numpy.str_("1"),
        numpy.array("1"),
        numpy.array("1", dtype=object),
        numpy.complex128(1),
        numpy.datetime64("2026-01-01"),
        numpy.timedelta64(1, "s"),
        numpy.ma.masked,
        numpy.ma.array([1.0], mask=[True]),
        numpy.array([]),
        torch.tensor(1j),
        torch.tensor(1.0, device="meta"),
    ]
    for value in wrong:
        with pytest.raises(InvalidRequest, match=r"^metric loss: expected a number"):
            checked_number("loss", value)


def test_a_refused_array_is_told_by_its_shape() -> None:
    numpy, torch = numpy_and_torch()
    for value, shown in (
        (numpy.zeros(1000), r"ndarray of shape \(1000,\)"),
        (torch.zeros(2, 3), r"Tensor of shape \(2, 3\)"),
        (None, "None"),
        ("x" * 1000, r"'xxx.*\.\.\..*x'"),
    ):
        with pytest.raises(InvalidRequest, match=f"got {shown}$"):
            checked_number("loss", value)


def test_steps_of_every_library_are_whole_numbers() -> None:
    numpy, torch = numpy_and_torch()
    fours = [4, numpy.int64(4), numpy.uint8(4), numpy.array(4), torch.tensor(4)]
    steps = [checked_step(step) for step in fours]
    assert steps == [4] * 5
    assert {type(step) for step in steps} == {int}
    for step in (
        numpy.bool_(True),
        torch.tensor(True),
        numpy.float64(4),
        numpy.ones(2),
    ):
        with pytest.raises(InvalidRequest, match=r"^step: expected a whole number"):
            checked_step(step)


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
