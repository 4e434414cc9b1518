"""What follows from the size of a context, measured or not."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.context_memory import (
    CONTEXT_BYTES,
    WORKSPACE_BYTES,
    headroom_bytes,
    least_share_bytes,
    with_contexts,
)
from jupyter_aistack.core.model.device import Device, DeviceKind
from jupyter_aistack.core.model.units import GIB, MIB


@pytest.mark.parametrize(
    ("context", "headroom", "least"),
    [
        (None, CONTEXT_BYTES, CONTEXT_BYTES + WORKSPACE_BYTES),
        (700 * MIB, 700 * MIB, 700 * MIB + WORKSPACE_BYTES),
        (0, 0, WORKSPACE_BYTES),
    ],
)
def test_what_was_measured_goes_before_what_is_assumed(
    context: int | None, headroom: int, least: int
) -> None:
    assert headroom_bytes(20 * GIB, context) == headroom
    assert least_share_bytes(context) == least


def test_a_small_slice_is_not_all_headroom() -> None:
    assert headroom_bytes(GIB, 700 * MIB) == GIB // 4


def device(number: int, least: int) -> Device:
    return Device(
        id=f"GPU-{number}",
        host="box",
        kind=DeviceKind.GPU,
        index=number,
        name="a GPU",
        memory_bytes=80 * GIB,
        least_share_bytes=least,
    )


def test_devices_are_told_what_was_measured_of_each() -> None:
    devices = (device(0, GIB), device(1, GIB), device(2, 0))
    told = with_contexts(iter(devices), {"GPU-0": 700 * MIB, "GPU-2": MIB})
    assert [each.context_bytes for each in told] == [700 * MIB, None, MIB]
    assert [each.least_share_bytes for each in told] == [
        700 * MIB + WORKSPACE_BYTES,
        GIB,
        0,
    ]
    assert told[1] is devices[1]
