"""How a ceiling is written, and what has none."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.core.model.ceiling import ceiling_text, parse_ceiling
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import InvalidRequest


@pytest.mark.parametrize(
    ("text", "ceiling"),
    [("1/1", 1), ("1", 1), ("0.5", Fraction(1, 2)), (" 3/4 ", Fraction(3, 4))],
)
def test_a_share_is_a_ceiling(text: str, ceiling: Fraction) -> None:
    assert parse_ceiling(text, parse_spec("1/4")) == ceiling


@pytest.mark.parametrize("spec", ["1/4", "gpu:1/2x2", "20GiB", "cpu:2", "1/4,cpu:8"])
def test_parts_of_a_device_have_a_ceiling(spec: str) -> None:
    assert parse_ceiling("1/1", parse_spec(spec)) == 1
    assert parse_ceiling("", parse_spec(spec)) is None


def test_the_guarantee_itself_is_a_ceiling() -> None:
    assert parse_ceiling("1/4", parse_spec("1/4")) == Fraction(1, 4)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("1/8", "1/4", "up_to: 1/8 of a device is less than 1/4 guarantees"),
        ("3/2", "1/4", "up_to: 3/2 is not within one device; write a share"),
        ("0", "1/4", "up_to: 0 is not within one device"),
        ("-1/2", "1/4", "up_to: -1/2 is not within one device"),
        ("1/0", "1/4", "up_to: '1/0' is no share; write a share"),
        ("40GiB", "1/4", "up_to: '40GiB' is no share; write a share of a device"),
        (0.5, "1/4", "up_to: 0.5 is no text; write a share of a device: 1/2, 0.5"),
        (None, "1/4", "up_to: None is no text; write a share of a device"),
        ("nan", "1/4", "up_to: 'nan' is no share"),
        ("1e-999999999", "1/4", "up_to: '1e-999999999' is no share"),
        ("1E999999999", "1/4", "up_to: '1E999999999' is no share"),
        ("1_0/2", "1/4", "up_to: '1_0/2' is no share"),
        ("0.25001", "1/4", "up_to: 0.25001 is too fine"),
        ("1/1", "1g.18gb", "up_to: 1g.18gb is a MIG profile, and only parts of"),
        ("1/1", "2", "up_to: 2 is whole devices, and only parts of"),
    ],
)
def test_bad_ceilings_are_one_sentence(text: Any, spec: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_ceiling(text, parse_spec(spec))
    assert caught.value.message.startswith(message)


def test_a_whole_device_is_not_taken_for_a_number() -> None:
    assert ceiling_text(Fraction(1)) == "1/1"
    assert ceiling_text(Fraction(3, 4)) == "3/4"
