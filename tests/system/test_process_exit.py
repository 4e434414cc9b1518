"""The end of a process: told of as it comes, and never another process's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyter_aistack.system.process_exit import ProcessExit
from jupyter_aistack.system.processes import started_at


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(["sleep", "600"])
    yield running
    running.kill()
    running.wait()


@pytest.fixture(params=["pidfd", "polling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the system lets the end of a process be waited for."""
    if request.param == "polling":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif sys.platform != "linux":
        pytest.skip("only Linux waits for processes that are no children")
    return str(request.param)


def test_a_process_that_runs_is_waited_for_no_longer_than_that(
    way: str, process: subprocess.Popen[bytes]
) -> None:
    with ProcessExit(process.pid) as ended:
        assert not ended.wait(0.01)


def test_its_end_is_noticed_before_anybody_has_collected_it(
    way: str, process: subprocess.Popen[bytes]
) -> None:
    with ProcessExit(process.pid, started_at(process.pid)) as ended:
        ended.send(signal.SIGKILL)
        assert ended.wait(None)
        process.wait()
        ended.send(signal.SIGKILL)
        assert ended.wait(0)


def test_a_bell_ends_the_wait(way: str, process: subprocess.Popen[bytes]) -> None:
    bell, ear = socket.socketpair()
    with bell, ear, ProcessExit(process.pid) as ended:
        bell.send(b".")
        assert not ended.wait(None, unless=ear)


def test_a_process_with_the_number_of_one_that_ended_is_left_alone(
    way: str, process: subprocess.Popen[bytes]
) -> None:
    since = started_at(process.pid)
    assert since is not None
    with ProcessExit(process.pid, since - 60) as ended:
        assert ended.wait(0)
        ended.send(signal.SIGKILL)
    assert process.poll() is None
    with ProcessExit(process.pid, since) as ended:
        assert not ended.wait(0.01)
