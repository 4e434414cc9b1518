"""Lists of visible devices, read as CUDA and ROCm read them."""

from __future__ import annotations

import pytest

from jupyter_aistack.providers.visible_list import has_ordinals, visible_positions

NAMES = [["GPU-aa11"], ["GPU-aa22"], ["GPU-bb33"], ["GPU-cc44", "MIG-GPU-x/1/0"]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2", (2,)),
        ("2,0", (2, 0)),
        (" 1 , 3 ", (1, 3)),
        ("+1", (1,)),
        ("1gpu,2ampere", (1, 2)),
        # What is no device ends the list.
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("none", ()),
        ("1,-1,2", (1,)),
        ("0,4,1", (0,)),
        ("0,,1", (0,)),
        ("0,GPU-bb33", (0,)),
        ("GPU-bb33,0", (2,)),
        # Named twice, it is no list.
        ("1,1", ()),
        ("GPU-aa11,GPU-aa11", ()),
        # Names, cut short or not.
        ("GPU-bb33", (2,)),
        ("GPU-b", (2,)),
        ("gpu-BB33", (2,)),
        ("GPU-aa", ()),
        ("GPU-bb,GPU-aa1", (2, 0)),
        ("GPU-zz,GPU-aa11", ()),
        ("MIG-GPU-x/1/0", (3,)),
        ("GPU-bb33 ", (2,)),
    ],
)
def test_a_list_shows_what_the_runtime_would_show(
    text: str, shown: tuple[int, ...]
) -> None:
    assert visible_positions(text, NAMES) == shown


def test_rocm_mixes_numbers_and_names() -> None:
    assert visible_positions("0,GPU-bb33", NAMES, may_mix=True) == (0, 2)


def test_a_whole_name_that_begins_another_is_its_own() -> None:
    assert visible_positions("GPU-1", [["GPU-1"], ["GPU-12"]]) == (0,)


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", True), (" 1,2", True), ("GPU-1", False), ("", False)]
)
def test_whether_devices_are_numbered(text: str, numbers: bool) -> None:
    assert has_ordinals(text) is numbers
