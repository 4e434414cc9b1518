"""Values as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.client.text import (
    own_stray_lines,
    share_text,
    stray_remark,
    usable_bytes,
    usable_cores,
)

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


STRAY = {
    "device_id": "GPU-0",
    "pid": 4711,
    "user": "ann",
    "command": "python train.py",
    "memory_bytes": 3 << 30,
    "since": 1000.0,
    "exemption": "",
    "ends_at": None,
    "is_own": True,
}
HOST = {"devices": [{"id": "GPU-0", "index": 0}]}


def test_own_processes_without_a_lease_are_said_in_a_line_each() -> None:
    other = {**STRAY, "is_own": False}
    ended = {**STRAY, "pid": 12, "command": "", "memory_bytes": None, "ends_at": 1660.0}
    lines = own_stray_lines({**HOST, "strays": [STRAY, other, ended]}, 1600.0)
    assert lines == [
        "your process 4711 (python train.py), 3.0 GiB, for 10 min uses GPU 0 without a lease; "
        "ask for a slice, and start it with that",
        "your process 12, n/a, for 10 min uses GPU 0 without a lease; it will be ended in 1 min; "
        "ask for a slice, and start it with that",
    ]


def test_a_host_of_before_tells_of_no_strays() -> None:
    assert own_stray_lines(HOST, 1600.0) == []


def test_what_becomes_of_a_process_without_a_lease_is_said() -> None:
    assert stray_remark(STRAY, 1600.0) == ""
    assert stray_remark({**STRAY, "ends_at": 1660.0}, 1600.0) == "ended in 1 min"
    assert stray_remark({**STRAY, "exemption": "root"}, 1600.0) == "it is root's"
    assert stray_remark({**STRAY, "exemption": "of later"}, 1600.0) == ""
