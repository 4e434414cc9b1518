"""Faults that the daemon's log tells of."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.providers.nvidia.mps.logs import (
    CUT_BYTES,
    Logs,
    find_fault,
    last_words,
)

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("Client {PID: 4267, Context ID: 0} encountered a fatal GPU error", 4267),
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


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("Client {0, 9000} encountered a fault", 9000),
        ("Client {4267, 1} caused a fault", 4267),
        ("Client {0, 12} caused a fault", None),
    ],
)
def test_of_two_numbers_the_one_that_is_connected_is_the_client(
    line: str, pid: int | None
) -> None:
    result = find_fault([f"[t Server 9] {line}"], clients={4267, 9000})
    assert result is not None
    assert result.pid == pid


def test_a_server_that_ends_as_it_starts_is_nobody_s_fault() -> None:
    text = "[t Server 9] Server encountered a fatal exception. Shutting down"
    assert find_fault([text]) is None


def test_the_last_words_are_no_chatter(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch()
    lines = [
        "Cmd:start_server -uid 0",
        "Starting new server 22258 for user 0",
        "Server 22258 exited with status 1",
        "Removed Shm file at ",
        "UI closed",
        "Accepting connection...",
        "NEW UI",
        "Cmd:get_client_list 22258",
        "Server 22258 not found",
        "100.0",
        "35G",
        "UI closed",
    ]
    log = tmp_path / "control.log"
    log.write_text("".join(f"[t Control 1] {line}\n" for line in lines))
    assert last_words(tmp_path) == "Server 22258 exited with status 1"


def test_a_log_that_was_read_is_cut_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "control.log"
    logs = Logs(tmp_path)
    line = f"[t Control 1] {'Cmd:get_server_list ' * 4}"
    log.write_text(f"{line}\n" * (CUT_BYTES // len(f"{line}\n")))
    with log.open("a") as daemon:
        assert len(logs.new_lines()) > 1
        assert log.stat().st_size > 0, "not before it is large"
        daemon.write(f"{line}\n" * 10)
        daemon.write("[t Server 9] Client {PID: 7, Context ID: 0} caused a fault\n")
        daemon.flush()
        fault = logs.new_fault()
        assert fault is not None
        assert fault.pid == 7
        assert log.stat().st_size == 0
        assert (tmp_path / "control.old").read_text().endswith("caused a fault\n")
        assert logs.new_lines() == []
        daemon.write("[t Control 1] UI closed\n")
    assert logs.new_lines() == ["[t Control 1] UI closed"]
    assert b"\0" not in log.read_bytes()


def test_a_line_about_defaults_tells_of_no_fault() -> None:
    assert (
        find_fault(["[t Control 1] command: set_default_active_thread_percentage 50"])
        is None
    )
