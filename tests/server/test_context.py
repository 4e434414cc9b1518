"""The server's part of the broker: built late, explained where it cannot be."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.server.app import ServerContext
from tests.fakes.rest_server import Ask


async def test_broker_that_cannot_be_built_is_explained_and_the_server_stays_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask, jp_fetch: Any
) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"this is no database" * 1000)
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{broken}")
    for method, path, body in (
        ("GET", "host", None),
        ("POST", "leases", {"spec": "1/4"}),
        ("GET", "usage", None),
    ):
        status, error = await ask(method, path, body)
        assert status == 503, error
        assert "ledger" in error["message"]
        assert "\n" not in error["message"]
    assert (await jp_fetch("api", "status")).code == 200


async def test_bad_setting_is_explained_and_heals_once_mended(
    ask: Ask, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_aistack.server import context as module

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:lots")
    status, error = await ask("GET", "host")
    assert (status, error["code"]) == (503, "LedgerUnavailable")
    assert "simulated" in error["message"]
    monkeypatch.delenv("AISTACK_PROVIDERS")
    assert (await ask("GET", "host"))[0] == 200


async def test_loading_twice_keeps_the_first_context(
    server: Any, context: ServerContext, ask: Ask
) -> None:
    from jupyter_aistack.server.app import AIStackExtension

    second = AIStackExtension()
    second._link_jupyter_server_extension(server)
    second.initialize()
    await second._start_jupyter_server_extension(server)
    assert server.web_app.settings["aistack"] is context
    assert second.handlers == []
    await second.stop_extension()
    assert Path(context.socket_path).is_socket()
    assert (await ask("GET", "host"))[0] == 200


def test_what_is_forked_from_a_server_closes_nothing_of_it(
    context: ServerContext,
) -> None:
    broker = context.broker
    child = os.fork()
    if child == 0:
        context.close()
        os._exit(0 if context.broker is broker else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_keeps_the_broker_away_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from jupyter_aistack.server import context as module

    reasons = ["read-only", "read-only", "full", "read-only"]

    def build() -> Any:
        raise LedgerUnavailable(reasons.pop(0))

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    unlucky = module.ServerContext(build, logging.getLogger("test"))
    while reasons:
        with pytest.raises(LedgerUnavailable):
            _ = unlucky.broker
    unlucky.close()
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["read-only", "full", "read-only"]
