"""Which GPU runtimes a process has, and whether one of them has started."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
)
from jupyter_aistack.system import runtimes

VENDOR = DeviceVisibility(hidden={"VENDOR_DEVICES": ""}, is_safe_to_hide=True)
CAUTIOUS = DeviceVisibility(hidden={"CAUTIOUS_DEVICES": ""})


def probe(**fields: Any) -> RuntimeProbe:
    """A probe of the C library, which every process on Linux has mapped."""
    values: dict[str, Any] = {
        "name": "C",
        "library": "libc.so.6",
        "function": "abs",
        "arguments": (3,),
        "not_started": 3,
    }
    return RuntimeProbe(**{**values, **fields})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the entry points load, in order of name; an exception fails to load."""
    loads: list[Any] = []

    class Entry:
        def __init__(self, name: str, loaded: Any) -> None:
            self.name = name
            self.loaded = loaded

        def load(self) -> Any:
            if isinstance(self.loaded, Exception):
                raise self.loaded
            return self.loaded

    def entry_points(*, group: str) -> list[Entry]:
        assert group == runtimes.GROUP
        entries = [Entry(str(number), load) for number, load in enumerate(loads)]
        return entries[::-1]

    monkeypatch.setattr(runtimes, "entry_points", entry_points)
    runtimes.installed_visibilities.cache_clear()
    yield loads
    runtimes.installed_visibilities.cache_clear()


def test_visibilities_are_those_that_load_by_name(installed: list[Any]) -> None:
    installed += [VENDOR, ImportError("gone"), "something else", CAUTIOUS]
    assert runtimes.installed_visibilities() == (VENDOR, CAUTIOUS)


def test_only_what_is_safe_is_hidden_on_an_unknown_host(installed: list[Any]) -> None:
    installed += [VENDOR, CAUTIOUS]
    assert runtimes.blindly_hidden_environment() == {"VENDOR_DEVICES": ""}


def test_a_runtime_has_started_once_it_answers_otherwise() -> None:
    assert not runtimes.has_started(probe())
    assert runtimes.has_started(probe(not_started=0))
    assert runtimes.has_started(probe(function="time", arguments=(None,)))


@pytest.mark.parametrize(
    "fields", [{"library": "libnowhere.so.1"}, {"function": "no_such_function"}]
)
def test_a_runtime_that_is_not_there_has_not_started(fields: dict[str, Any]) -> None:
    assert not runtimes.has_started(probe(not_started=0, **fields))


def test_a_started_runtime_is_named(installed: list[Any]) -> None:
    installed.append(VENDOR)
    assert runtimes.started_runtime() == ""
    idle = DeviceVisibility(runtime=probe(name="idle"))
    started = DeviceVisibility(runtime=probe(name="started", not_started=0))
    assert runtimes.started_runtime([idle, started]) == "started"


@pytest.mark.parametrize("vendor", ["amd", "nvidia"])
def test_the_own_providers_say_how_they_are_shown(vendor: str) -> None:
    value = f"jupyter_aistack.providers.{vendor}.visibility:VISIBILITY"
    entry = EntryPoint(name=vendor, value=value, group=runtimes.GROUP)
    assert isinstance(entry.load(), DeviceVisibility)
