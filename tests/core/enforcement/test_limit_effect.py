"""What the holder of a lease reads of a limit that takes effect later."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.enforcement.limit_effect import (
    LimitEffect,
    pending_update,
    weakest,
)
from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.request import HolderKind
from tests.fakes.ceilings import GPU, quarter

LIMIT = SliceLimit(device_id=GPU.id, fraction=Fraction(3, 4), memory_bytes=60)
KERNEL = quarter(1, "1/1", limits=(LIMIT,))
SCRIPT = replace(KERNEL, holder=replace(KERNEL.holder, kind=HolderKind.PROCESS))


def told_by(lease: Lease, effect: LimitEffect) -> str:
    return pending_update(lease, effect, 5.0).text


@pytest.mark.parametrize(
    ("lease", "effect", "is_pending"),
    [
        (KERNEL, LimitEffect.NOW, False),
        (KERNEL, LimitEffect.NEXT_CELL, False),
        (SCRIPT, LimitEffect.NEXT_CELL, True),
        (KERNEL, LimitEffect.NEXT_START, True),
    ],
)
def test_only_what_waits_for_a_start_is_told(
    lease: Lease, effect: LimitEffect, is_pending: bool
) -> None:
    message = (
        "another limit: 3/4 from the next start of its process on: what holds it now "
        "cannot be changed while it runs"
    )
    assert told_by(lease, effect) == (message if is_pending else "")


def test_what_holds_again_is_told_no_longer() -> None:
    conditions = pending_update(KERNEL, LimitEffect.NEXT_START, 5.0).apply(())
    assert [each.kind for each in conditions] == [ConditionKind.LIMIT_PENDING]
    assert pending_update(KERNEL, LimitEffect.NOW, 6.0).apply(conditions) == ()


def test_a_lease_held_in_several_ways_follows_with_the_slowest() -> None:
    assert weakest([]) is LimitEffect.NOW
    slow = [LimitEffect.NEXT_START, LimitEffect.NOW, LimitEffect.NEXT_CELL]
    assert weakest(slow) is LimitEffect.NEXT_START
