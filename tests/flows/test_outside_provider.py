"""A provider of another package: found, granted, enforced, measured and shown, with no
change in ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from jupyter_aistack.cli import main
from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest, ProviderError
from jupyter_aistack.notebook.magics.extension import AIStackMagics
from jupyter_aistack.providers.registry import build_providers
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.rest_server import ask, jp_server_config, server

__all__ = ["ask", "jp_server_config", "server"]

OUTSIDE = Path(__file__).parents[1] / "fakes" / "outside_provider"
MOST_LINES = 120


@pytest.fixture(autouse=True)
def abaci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package is installed, and the host has one device of it."""
    folder = tmp_path / "abaci"
    folder.mkdir()
    beads = {"memory_bytes": 16 * GIB, "used_bytes": 3 * GIB, "busy": 0.25}
    (folder / "a0.json").write_text(json.dumps(beads))
    monkeypatch.syspath_prepend(str(OUTSIDE))
    monkeypatch.setenv("ABACUS_DEVICES", str(folder))
    monkeypatch.setenv("AISTACK_PROVIDERS", "abacus,cpu")
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    for name in ("AISTACK_SOCKET", "AISTACK_KERNEL", "AISTACK_LEASE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[clients.Client]:
    monkeypatch.setattr(clients, "_connected", None)
    result = clients.connect()
    yield result
    held = clients.attached()
    if held is not None:
        held.release()
    result.close()


def test_it_is_short() -> None:
    lines = (OUTSIDE / "abacus_provider.py").read_text().splitlines()
    assert len(lines) < MOST_LINES


def test_it_is_found_by_its_name_and_by_auto() -> None:
    assert [provider.name for provider in build_providers("abacus")] == ["abacus"]
    automatic = [provider.name for provider in build_providers("auto")]
    assert automatic == ["gpu", "amd", "abacus", "cpu"]


def test_a_name_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match="abacus, amd, cpu, gpu or simulated"):
        build_providers("sliderule")


def test_one_that_cannot_be_loaded_says_so_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken" / "broken_provider-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-provider\nVersion: 1.0\n"
    )
    (folder / "entry_points.txt").write_text(
        "[jupyter_aistack.providers]\nbroken = nowhere_at_all:Provider\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    words = "the provider broken of broken-provider cannot be loaded: ModuleNotFound"
    with pytest.raises(InvalidRequest, match=words):
        build_providers("broken")
    providers = {provider.name: provider for provider in build_providers("auto")}
    assert len(providers["abacus"].discover("box")) == 1
    with pytest.raises(ProviderError, match=words):
        providers["broken"].discover("box")


def test_its_device_is_granted_enforced_by_environment_and_measured(
    abaci: Path,
) -> None:
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.ledger.memory import MemoryLedger

    clock = ManualClock()
    broker = Broker(MemoryLedger(), build_providers("abacus"), host="box", clock=clock)
    request = broker.submit("1", holder(host="box", pid=os.getpid()))
    lease = broker.lease(request.lease_id)
    prepared = broker.prepare(lease)
    assert prepared.environment["ABACUS_VISIBLE_DEVICES"] == "ABACUS-a0"
    assert broker.devices.hidden_environment() == {"ABACUS_VISIBLE_DEVICES": ""}
    used, on_devices = broker.usage()
    assert (used[lease.id].memory_bytes, used[lease.id].utilization) == (3 * GIB, 0.25)
    assert on_devices["ABACUS-a0"].memory_bytes == 3 * GIB
    broker.record_usage()
    clock.advance(20.0)
    broker.record_usage(settle=True)
    (charge,) = (c for c in broker.ledger.charges(0, 99_999) if c.lease_id == lease.id)
    assert (charge.seconds, charge.busy_seconds) == (20.0, 5.0)
    broker.close()


def test_the_magics_show_it_and_attach_it(client: clients.Client) -> None:
    shell = InteractiveShell()
    shell.colors = "nocolor"
    magics = AIStackMagics(shell, lambda: client)
    magics.register()
    try:
        assert "Abacus 9000" in str(shell.run_line_magic("gpu", "request 1"))
        assert os.environ["ABACUS_VISIBLE_DEVICES"] == "ABACUS-a0"
        assert "3.0 GiB" in str(shell.run_line_magic("gpu", ""))
        shell.run_line_magic("gpu", "release")
        assert os.environ.get("ABACUS_VISIBLE_DEVICES", "") == ""
    finally:
        magics.unregister()


def test_the_command_line_shows_it(
    client: clients.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with clients.request("1", attach=False):
        assert main(["status"]) == 0
    assert "Abacus 9000" in capsys.readouterr().out


@pytest.fixture
def providers() -> str:
    return "abacus,cpu"


@pytest.mark.service
async def test_the_panel_is_sent_it(ask: Any) -> None:
    _, host = await ask("GET", "host")
    (device,) = (d for d in host["devices"] if d["vendor"] == "abacus")
    status, _ = await ask("POST", "leases", {"spec": "1"})
    assert status in (200, 201)
    _, usage = await ask("GET", "usage")
    assert usage["devices"][device["id"]]["memory_bytes"] == 3 * GIB


@pytest.mark.service
async def test_one_that_fails_is_said_and_keeps_nothing_else_from_going_on(
    ask: Any, jp_fetch: Any, abaci: Path
) -> None:
    _, host = await ask("GET", "host")
    (device,) = (d for d in host["devices"] if d["vendor"] == "abacus")
    status, answer = await ask("POST", "leases", {"spec": "1"})
    assert status in (200, 201)

    # What says how much is in use is gone: discovery still answers, measuring raises.
    (abaci / "a0.json").write_text(json.dumps({"memory_bytes": 16 * GIB}))
    for _ in range(3):
        status, usage = await ask("GET", "usage")
        assert status == 200
    assert usage["devices"][device["id"]]["memory_bytes"] in (None, 3 * GIB)
    assert (await jp_fetch("aistack", "metrics")).code == 200

    # And now nothing of it can be read at all.
    (abaci / "a0.json").write_text("no beads")
    status, _ = await ask("GET", "usage")
    assert status == 200
    assert (await jp_fetch("aistack", "metrics")).code == 200
    status, beside = await ask("POST", "leases", {"spec": "cpu:1"})
    assert status in (200, 201)
    status, _ = await ask("DELETE", f"leases/{answer['lease']['id']}")
    assert status == 200
    assert beside["lease"]["state"] != "ended"


def test_one_that_cannot_be_built_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(options: object) -> None:
        raise OSError("no beads")

    (provider,) = build_providers("abacus")
    monkeypatch.setattr(type(provider), "build", build)
    with pytest.raises(InvalidRequest, match="cannot be built: OSError: no beads"):
        build_providers("abacus")
    providers = {each.name: each for each in build_providers("auto")}
    with pytest.raises(ProviderError, match="OSError: no beads"):
        providers["abacus"].discover("box")
