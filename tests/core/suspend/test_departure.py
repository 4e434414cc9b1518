"""Whether memory has left its device, by what the driver says before and after."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.suspend.departure import DeviceUse, has_left

MIB = 1 << 20


def use(held: int | None, used: int | None = None) -> DeviceUse:
    held_bytes = None if held is None else held * MIB
    used_bytes = None if used is None else used * MIB
    return DeviceUse(held_bytes=held_bytes, used_bytes=used_bytes)


@pytest.mark.parametrize(
    ("before", "after", "is_gone"),
    [
        (use(500), use(0), True),
        (use(500), use(1), True),
        (use(None), use(0), True),
        (use(500, 800), use(64, 300), False),
        (use(500, 800), use(None, 300), True),
        (use(500, 800), use(None, 301), True),
        (use(500, 800), use(None, 310), False),
        (use(500, 800), use(None, None), False),
        (use(500, None), use(None, 300), False),
        (use(None, 800), use(None, 0), False),
        (use(0, 800), use(None, 800), False),
    ],
)
def test_memory_has_left_when_it_is_free_and_not_when_nobody_says(
    before: DeviceUse, after: DeviceUse, is_gone: bool
) -> None:
    assert has_left(before, after) is is_gone
