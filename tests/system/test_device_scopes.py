"""A scripted systemd on a real socket, asked by the real client."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.device_scopes import DeviceScopes
from jupyter_aistack.system.processes import started_at
from tests.fakes.system_bus import SystemBus, system_bus
from tests.fakes.user_processes import NEEDS_ROOT

SELF = os.getpid()
GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl")
OPEN = [("/dev/ptmx", "rw"), ("/dev/tty", "rw"), ("char-pts", "rw")]


@pytest.fixture
def bus() -> Iterator[SystemBus]:
    with (
        tempfile.TemporaryDirectory(prefix="bus") as folder,
        system_bus(Path(folder)) as made,
    ):
        yield made


@pytest.fixture
def scopes(bus: SystemBus, tmp_path: Path) -> DeviceScopes:
    return DeviceScopes(bus.path, tmp_path, seconds=5.0)


def allowed(properties: list[tuple[str, tuple[str, Any]]]) -> list[Any]:
    return [value for name, (_, value) in properties if name == "DeviceAllow"]


def test_a_process_is_moved_into_a_scope_that_lets_it_open_its_devices_alone(
    bus: SystemBus, scopes: DeviceScopes
) -> None:
    scopes.confine(SELF, GPU_FILES)
    [(method, (name, mode, properties, auxiliary))] = bus.calls
    assert (method, mode, auxiliary) == ("StartTransientUnit", "fail", [])
    started = started_at(SELF)
    assert started is not None
    assert name == f"aistack-{SELF}-{round(started * 100)}.scope"
    given = dict(properties)
    assert given["PIDs"] == ("au", [SELF])
    assert given["DevicePolicy"] == ("s", "closed")
    assert allowed(properties) == [[*OPEN, *((file, "rw") for file in GPU_FILES)]]


def test_a_scope_that_is_there_is_changed_and_first_taken_all_back(
    bus: SystemBus, scopes: DeviceScopes
) -> None:
    scopes.confine(SELF, GPU_FILES)
    scopes.confine(SELF, ())
    methods = [method for method, _ in bus.calls]
    assert methods == ["StartTransientUnit", "StartTransientUnit", "SetUnitProperties"]
    name, is_runtime, properties = bus.calls[-1][1]
    assert name in bus.units
    assert is_runtime is True
    assert allowed(properties) == [[], OPEN]


def test_what_systemd_refuses_is_said_in_its_words(
    bus: SystemBus, scopes: DeviceScopes
) -> None:
    error = ("org.freedesktop.DBus.Error.AccessDenied", "Access denied")
    bus.refusals["StartTransientUnit"] = error
    with pytest.raises(ProviderError, match="systemd refuses: Access denied"):
        scopes.confine(SELF, GPU_FILES)


def test_a_process_that_is_gone_is_not_moved(
    bus: SystemBus, scopes: DeviceScopes
) -> None:
    with pytest.raises(ProviderError, match="does not run"):
        scopes.confine(2**22, GPU_FILES)
    assert bus.calls == []


def test_a_bus_that_does_not_answer_keeps_nobody_for_long(
    bus: SystemBus, tmp_path: Path
) -> None:
    bus.is_mute = True
    with pytest.raises(ProviderError, match="systemd does not answer"):
        DeviceScopes(bus.path, tmp_path, seconds=0.05).confine(SELF, GPU_FILES)


@NEEDS_ROOT
def test_where_it_can_be_had_there_is_no_refusal(
    bus: SystemBus, scopes: DeviceScopes
) -> None:
    assert scopes.refusal() == ""
    assert [method for method, _ in bus.calls] == ["Get"]


def test_without_systemd_that_is_the_reason(tmp_path: Path) -> None:
    scopes = DeviceScopes(tmp_path / "bus", tmp_path / "nowhere")
    assert scopes.refusal() == "systemd does not run here"


@NEEDS_ROOT
def test_without_a_bus_that_is_the_reason(tmp_path: Path) -> None:
    scopes = DeviceScopes(tmp_path / "bus", tmp_path)
    assert "systemd does not answer at" in scopes.refusal()
