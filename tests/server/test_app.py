"""A server from its start to its end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.server.app import ServerContext
from tests.fakes.live_server import (
    end,
    live_server,
    post,
    wait_for_kernel,
)


def test_server_takes_settings_from_the_command_line_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    with live_server(
        tmp_path,
        "--AIStack.providers=simulated:3xH100-80GB",
        "--AIStack.cycle_seconds=0.2",
    ) as server:
        host = server.get("aistack/api/v1/host")
        assert [device["kind"] for device in host["devices"]].count("gpu") == 3
        kernel = post(f"{server.url}api/kernels", {"name": "python3"})
        wait_for_kernel(server, kernel["id"])
        held = post(
            f"{server.url}aistack/api/v1/leases",
            {"spec": "1/4", "kernel_id": kernel["id"]},
        )
        assert held["lease"]["holder"]["id"] == kernel["id"]
        assert end(server.process) == 0
        log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "was destroyed" not in log
    assert list((tmp_path / "runtime").glob("aistack-*")) == []


def test_broker_that_cannot_be_built_stops_neither_server_nor_kernels(
    tmp_path: Path,
) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database" * 1000)
    with live_server(tmp_path) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.get("aistack/api/v1/leases")
        assert caught.value.code == 503
        assert "ledger" in json.load(caught.value)["message"]
        kernel = post(f"{server.url}api/kernels", {"name": "python3"})
        wait_for_kernel(server, kernel["id"])
        assert end(server.process) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_loading_the_extension_opens_no_driver_and_no_ledger() -> None:
    heavy = (
        "('sqlalchemy', 'pynvml', 'psutil', 'prometheus_client.core',"
        " 'jupyter_aistack.broker.broker', 'jupyter_aistack.core.wire.values')"
    )
    code = f"""
import sys, jupyter_server.serverapp, jupyter_server.extension.application
before = set(sys.modules)
import jupyter_aistack.server.app
print([name for name in {heavy} if name in set(sys.modules) - before])
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert loaded == "[]"


async def test_driver_that_takes_its_time_does_not_hold_up_the_server(
    server: Any,
    context: ServerContext,
    jp_ws_fetch: Any,
    jp_fetch: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asleep = threading.Event()

    def slowly(method: Any) -> Any:
        def slow(*args: Any) -> Any:
            asleep.set()
            time.sleep(0.3)
            return method(*args)

        return slow

    await context.ready()
    monkeypatch.setattr("jupyter_aistack.broker.devices.INVENTORY_SECONDS", 0.0)
    for name in ("discover", "sample"):
        monkeypatch.setattr(
            SimulatedProvider, name, slowly(getattr(SimulatedProvider, name))
        )
    sockets = [await jp_ws_fetch("aistack", "api", "v1", "stream") for _ in range(10)]
    loop, lags = asyncio.get_running_loop(), []
    until = loop.time() + 2
    while loop.time() < until:
        before = loop.time()
        await asyncio.sleep(0.005)
        lags.append(loop.time() - before - 0.005)
    for socket in sockets:
        socket.close()
    assert asleep.is_set()
    assert sorted(lags)[int(len(lags) * 0.99)] < 0.15, "half of what the driver takes"


async def test_broker_closes_with_the_context_only(
    server: Any, context: ServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(Broker, "close", lambda self: closed.append(os.getpid()))
    await context.ready()
    await server.extension_manager.stop_all_extensions()
    assert closed == []
    context.close()
    context.close()
    assert len(closed) == 1
