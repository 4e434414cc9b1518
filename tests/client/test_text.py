"""Values as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.client.text import share_text, usable_bytes, usable_cores

QUARTER: dict[str, Any] = {
    "device_id": "GPU-0",
    "fraction": "1/4",
    "memory_bytes": 20,
    "cores": [0],
}
LIMIT = {
    "device_id": "GPU-0",
    "fraction": "3/4",
    "memory_bytes": 60,
    "cores": [0, 2],
}


def a_lease(up_to: str | None = None, *limits: dict[str, Any]) -> dict[str, Any]:
    return {"slices": [QUARTER], "up_to": up_to, "limits": list(limits)}


@pytest.mark.parametrize(
    ("lease", "text"),
    [
        (a_lease(), "1/4"),
        (a_lease("1", LIMIT), "1/4, up to 1/1, now 3/4"),
        (a_lease("3/4", LIMIT), "1/4, up to 3/4, now 3/4"),
        (a_lease("1", {**LIMIT, "fraction": "1"}), "1/4, up to 1/1, now 1/1"),
        (a_lease("1", {**LIMIT, "fraction": "7/48"}), "1/4, up to 1/1, now 7/48"),
        (a_lease("1", {**LIMIT, "fraction": "17/48"}), "1/4, up to 1/1, now 17/48"),
        (a_lease("1", {**LIMIT, "fraction": "101/480"}), "1/4, up to 1/1, now 21.0%"),
        # No limit has been set on that device yet.
        (a_lease("1", {**LIMIT, "device_id": "GPU-1"}), "1/4"),
    ],
)
def test_a_share_says_up_to_what_and_how_much_now(
    lease: dict[str, Any], text: str
) -> None:
    assert share_text(lease, QUARTER) == text


def test_what_may_be_used_now_is_counted() -> None:
    assert usable_bytes(a_lease()) == 20
    assert usable_bytes(a_lease("1", LIMIT)) == 60
    assert usable_cores(a_lease(), QUARTER) == [0]
    assert usable_cores(a_lease("1", LIMIT), QUARTER) == [0, 2]
