"""Requests to servers that are down in all the ways a server can be."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.tracking.bounds import (
    Bounds,
    bounded,
    chosen_read_seconds,
    failure_of,
)
from tests.fakes.mlflow_server import TrackingServer, tracking_server

pytest.importorskip("mlflow")

SHORT = Bounds(connect_seconds=0.3, read_seconds=0.3)


@pytest.fixture
def server() -> Iterator[TrackingServer]:
    with tracking_server() as running:
        yield running


def failing(uri: str) -> Exception:
    """How a first request fails."""
    from mlflow.tracking import MlflowClient

    with bounded(SHORT), pytest.raises(Exception) as caught:  # noqa: PT011
        MlflowClient(uri).get_experiment_by_name("x")
    return caught.value


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_out_of_service_is_asked_once(
    server: TrackingServer, status: int
) -> None:
    server.status = status
    failure = failure_of(failing(server.uri))
    assert (failure.is_outage, server.requests) == (True, 1)
    assert str(status) in failure.why


def test_nobody_listening_is_an_outage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = failure_of(failing(f"http://127.0.0.1:{port}"))
    assert failure.is_outage
    assert "Connection refused" in failure.why


def test_a_server_that_hangs_is_an_outage(server: TrackingServer) -> None:
    server.hangs = threading.Event()
    failure = failure_of(failing(server.uri))
    assert (failure.is_outage, server.requests) == (True, 1)
    assert "did not answer in time" in failure.why or "timed out" in failure.why


def test_an_unknown_name_is_no_outage() -> None:
    failure = failure_of(failing("http://no-such-host.invalid"))
    assert (failure.why, failure.is_outage) == ("no host of that name is known", False)


def test_no_tls_is_no_outage(server: TrackingServer) -> None:
    failure = failure_of(failing(server.uri.replace("http", "https")))
    assert failure.why.startswith("no secure connection: ")
    assert not failure.is_outage


def test_an_answer_that_refuses_is_no_outage(server: TrackingServer) -> None:
    server.status = 401
    assert not failure_of(failing(server.uri)).is_outage


def test_the_users_own_calls_keep_mlflows_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import environment_variables

    retries = environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES
    timeout = environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT
    in_other_thread: list[Any] = []

    def look() -> None:
        in_other_thread.append((retries.get(), timeout.get()))

    with bounded(SHORT):
        ours = (retries.get(), timeout.get())
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    assert ours == (0, (0.3, 0.3))
    assert in_other_thread == [(7, 120), (7, 120)]
    assert chosen_read_seconds(30.0) == 30.0
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "45")
    assert chosen_read_seconds(30.0) == 45.0


def test_mlflows_log_of_our_failures_is_kept_out_and_of_others_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("mlflow.store.db.utils")
    log.addHandler(caplog.handler)
    try:
        with bounded(SHORT):
            log.error("ours")
        log.error("theirs")
    finally:
        log.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"theirs"}


def test_a_deleted_working_folder_is_none_of_mlflows_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    before = os.stat(".").st_ino
    gone.rmdir()
    with bounded(SHORT):
        assert os.getcwd() == "/"
    assert os.stat(".").st_ino == before
