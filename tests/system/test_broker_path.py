"""Which socket is the broker of this host, and whose it may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied
from jupyter_aistack.system import broker_path as module
from jupyter_aistack.system.broker_path import broker_path, check_owner
from tests.fakes.scripted_broker import ScriptedBroker

as_root = pytest.mark.skipif(os.getuid() != 0, reason="makes a socket another user's")
ANOTHER_USER = 23001


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the service of this host would listen."""
    monkeypatch.delenv("AISTACK_BROKER")
    path = tmp_path / "broker.sock"
    monkeypatch.setattr(module, "DEFAULT_PATH", str(path))
    return path


@pytest.fixture
def listening(service: Path) -> Iterator[Path]:
    """The service listens."""
    broker = ScriptedBroker(service)
    yield service
    broker.stop()


def test_without_a_service_there_is_none(service: Path) -> None:
    assert broker_path() == ""
    assert broker_path("/srv/broker.sock") == "/srv/broker.sock"


def test_the_environment_goes_before_the_settings(
    listening: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broker_path() == str(listening)
    assert broker_path("off") == ""
    monkeypatch.setenv("AISTACK_BROKER", "/other.sock")
    assert broker_path("off") == "/other.sock"
    monkeypatch.setenv("AISTACK_BROKER", "off")
    assert broker_path("/srv/broker.sock") == ""


def test_a_path_that_no_socket_can_have_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AISTACK_BROKER", "/run/" + "x" * 200)
    with pytest.raises(InvalidRequest, match="107 bytes"):
        broker_path()


@as_root
def test_a_service_that_another_user_pretends_to_be_is_refused(listening: Path) -> None:
    os.chown(listening, ANOTHER_USER, ANOTHER_USER)
    with pytest.raises(PermissionDenied, match=f"belongs to uid-{ANOTHER_USER}"):
        broker_path()


@as_root
def test_a_system_user_may_answer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "aistack"
    folder.mkdir(mode=0o755)
    broker = ScriptedBroker(folder / "broker.sock")
    os.chown(folder, ANOTHER_USER, ANOTHER_USER)
    os.chown(broker.path, ANOTHER_USER, ANOTHER_USER)
    assert check_owner(str(broker.path)) == ANOTHER_USER
    folder.chmod(0o777)
    with pytest.raises(PermissionDenied):
        check_owner(str(broker.path))
    broker.stop()
