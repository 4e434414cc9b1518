"""What may be used of a slice now, and for how long what was used before is left alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.limit import (
    LOWERED_GRACE_SECONDS,
    SliceLimit,
    limited,
)

HALF = SliceLimit(device_id="GPU-0", fraction=Fraction(1, 2), memory_bytes=50)
WHOLE = SliceLimit(device_id="GPU-0", fraction=Fraction(1), memory_bytes=100)


def test_a_limit_that_falls_leaves_what_was_used_alone_for_a_while() -> None:
    lowered = HALF.after(WHOLE, 10.0)
    assert lowered.grace_left(10.0) == LOWERED_GRACE_SECONDS
    assert lowered.tolerated_bytes(10.0) == 100
    end = 10.0 + LOWERED_GRACE_SECONDS
    assert lowered.grace_left(end) == 0
    assert lowered.tolerated_bytes(end) == 50


def test_a_clock_that_is_set_back_takes_nothing_of_the_grace() -> None:
    lowered = HALF.after(WHOLE, 10.0)
    assert lowered.grace_left(-9999.0) == LOWERED_GRACE_SECONDS
    assert lowered.tolerated_bytes(-9999.0) == 100


def test_a_limit_that_rises_forgets_what_was() -> None:
    lowered = HALF.after(WHOLE, 10.0)
    assert WHOLE.after(lowered, 11.0) == WHOLE
    assert HALF.after(None, 10.0) == HALF


def test_a_limit_of_the_same_memory_keeps_its_grace() -> None:
    lowered = HALF.after(WHOLE, 10.0)
    third = replace(HALF, fraction=Fraction(1, 3))
    assert third.after(lowered, 20.0).lowered_at == 10.0
    assert lowered.same_amounts(HALF)
    assert not third.same_amounts(HALF)


def test_a_slice_is_as_large_as_its_limit_and_others_stay() -> None:
    share = Slice(
        device_id="GPU-0",
        kind=SliceKind.SHARE,
        fraction=Fraction(1, 4),
        memory_bytes=25,
    )
    assert limited(share, (HALF,)).memory_bytes == 50
    other = replace(share, device_id="GPU-1")
    assert limited(other, (HALF,)) == other
