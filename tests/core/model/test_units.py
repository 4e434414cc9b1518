from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.units import (
    GIB,
    MAX_SECONDS,
    exact_bytes,
    format_about,
    format_bytes,
    format_duration,
    format_share,
    parse_bytes,
    parse_duration,
)
from jupyter_aistack.exceptions import InvalidRequest


@given(st.integers(0, 1 << 50))
def test_exact_bytes_read_back_exactly(amount: int) -> None:
    assert parse_bytes(exact_bytes(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("20GiB", 20 * GIB), ("1.5gib", 3 * GIB // 2), ("1GB", 10**9), ("12", 12)],
)
def test_amounts_of_memory_are_read(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("30min", 1800),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1.5h", 5400),
        ("7d", 604800),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "nan", "inf", "2 h", "h", "1x", f"{MAX_SECONDS + 1}", "1h-30m"],
)
def test_what_is_no_duration_names_the_field(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_duration(text, field="for")
    assert caught.value.facts["field"] == "for"


def test_amounts_are_shown_for_people() -> None:
    assert [format_bytes(n) for n in (12, 2048, 20 * GIB)] == [
        "12 B",
        "2.0 KiB",
        "20.0 GiB",
    ]
    assert [format_duration(n) for n in (0.4, 59, 65, 3600, 7500, 90000)] == [
        "0 s",
        "59 s",
        "1 min 5 s",
        "1 h",
        "2 h 5 min",
        "1 d 1 h",
    ]


def test_what_is_roughly_known_is_said_roughly() -> None:
    messages = [
        format_about(seconds) for seconds in (-1, 0, 1, 10, 59, 60, 61, 697, 720, 7500)
    ]
    assert messages == [
        "0 s",
        "0 s",
        "10 s",
        "10 s",
        "1 min",
        "1 min",
        "2 min",
        "12 min",
        "12 min",
        "2 h 5 min",
    ]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [("1/4", "1/4"), ("1", "1"), ("11/16", "11/16"), ("40960/143771", "28.5%")],
)
def test_shares_that_are_no_short_fraction_are_in_percent(
    fraction: str, text: str
) -> None:
    assert format_share(fraction) == text
