"""Faults that the daemon's log tells of."""

from __future__ import annotations

import pytest

from jupyter_aistack.providers.nvidia.mps.logs import find_fault

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("Client {PID: 4267, Context ID: 0} encountered a fatal GPU error", 4267),
        ("Client {4267, 1} caused a fault", 4267),
        ("fatal exception of client process 4267", 4267),
        ("Server is in FAULT state", None),
    ],
)
def test_a_fault_in_the_log_names_its_client(line: str, pid: int | None) -> None:
    result = find_fault(
        [
            "[t Control 1] Set default active thread percentage of client 7",
            f"[t Server 9] {line}",
        ]
    )
    assert result is not None
    assert result.pid == pid


def test_a_line_about_defaults_tells_of_no_fault() -> None:
    assert (
        find_fault(["[t Control 1] command: set_default_active_thread_percentage 50"])
        is None
    )
