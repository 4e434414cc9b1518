"""Which broker a process uses follows from its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
from jupyter_aistack.broker.remote.remote import RemoteBroker
from jupyter_aistack.config import AIStack, build_kernel_broker, find_host_broker


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("AISTACK_BROKER")
    return str(tmp_path / "broker.sock")


def test_a_path_in_the_settings_is_the_hosts_broker(path: str) -> None:
    settings = AIStack(broker_socket=path)
    connection = find_host_broker(settings)
    assert connection is not None
    assert connection.path == path
    assert isinstance(build_kernel_broker(settings), RemoteBroker)


def test_without_one_a_process_has_a_broker_of_its_own(path: str) -> None:
    settings = AIStack(broker_socket="off", providers="simulated:1xH100-80GB")
    assert find_host_broker(settings) is None
    assert isinstance(build_kernel_broker(settings), EmbeddedBroker)
