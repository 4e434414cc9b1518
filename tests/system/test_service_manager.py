from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from jupyter_aistack.system import service_manager


def test_a_service_is_heard_by_its_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        status = service_manager.status_text("two\nlines")
        assert service_manager.notify(service_manager.READY, status)
        assert manager.recv(100) == b"READY=1\nSTATUS=two lines"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not service_manager.notify(service_manager.READY)


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("60000000", None, 60.0), ("0", None, None), ("x", None, None), ("1", "1", None)],
)
def test_the_watchdog_asks_this_process_alone(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str,
    pid: str | None,
    seconds: float | None,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert service_manager.watchdog_seconds() == seconds


def test_no_socket_is_inherited_that_is_for_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert service_manager.inherited_listener(Path("/x")) is None
