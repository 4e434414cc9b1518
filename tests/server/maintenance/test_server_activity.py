from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_aistack.server import app
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.maintenance.server_activity import (
    LOOK_SECONDS,
    ServerActivity,
    look_seconds,
    needed_kernels,
)
from jupyter_aistack.testing import ManualClock
from tests.fakes.rest_server import Ask
from tests.fakes.waiting import until

LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(autouse=True)
def no_other_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself does not look: it would do so in the middle of a test."""

    async def note() -> None:
        pass

    def made(*_: Any) -> Any:
        return SimpleNamespace(note=note)

    monkeypatch.setattr(app, "ServerActivity", made)


def item(kernel_id: str, parent: str = "") -> dict[str, Any]:
    return {"holder": {"id": kernel_id, "parent": parent}}


def test_waiting_is_needed_and_holding_only_while_a_cell_runs() -> None:
    needed = needed_kernels(
        [item("waits"), item("worker-1", parent="asks-for-workers")],
        [item("holds"), item("works"), item("run-1", parent="trains")],
        busy=frozenset({"works", "trains", "holds-nothing"}),
    )
    assert needed == {"waits", "asks-for-workers", "works", "trains"}


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [(None, LOOK_SECONDS), ("5", 5), ("300", LOOK_SECONDS), ("often", LOOK_SECONDS)],
)
def test_it_is_looked_as_often_as_the_hub_is_told(
    interval: str | None, seconds: float
) -> None:
    environment = {} if interval is None else {"JUPYTERHUB_ACTIVITY_INTERVAL": interval}
    assert look_seconds(environment) == seconds


async def start_kernel(server: Any, jp_fetch: Any) -> str:
    """A kernel of a server on which nothing has happened for a day."""
    response = await jp_fetch("api", "kernels", method="POST", body="{}")
    kernel_id: str = json.loads(response.body)["id"]
    manager = server.kernel_manager.get_kernel(kernel_id)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)

    # What a kernel said before the server listened to it is never heard: ask again.
    for _ in range(60):
        await client.kernel_info(reply=True, timeout=60)
        with suppress(AssertionError):
            await until(lambda: manager.execution_state == "idle", seconds=1)
            break
    client.stop_channels()
    assert manager.execution_state == "idle"
    forget_activity(server, kernel_id)
    return kernel_id


def forget_activity(server: Any, kernel_id: str = "") -> None:
    settings = server.web_app.settings
    settings["started"] = settings["api_last_activity"] = LONG_AGO
    settings["last_activity_times"].clear()
    server.kernel_manager.last_kernel_activity = LONG_AGO
    if kernel_id:
        server.kernel_manager.get_kernel(kernel_id).last_activity = LONG_AGO


def is_idle(server: Any, kernel_id: str) -> tuple[bool, bool]:
    """Whether server and kernel look idle for a day to those who cull them."""
    kernel = server.kernel_manager.get_kernel(kernel_id)
    return server.web_app.last_activity() == LONG_AGO, kernel.last_activity == LONG_AGO


async def test_who_waits_keeps_its_server_and_its_kernel(
    server: Any, context: ServerContext, jp_fetch: Any
) -> None:
    kernel_id = await start_kernel(server, jp_fetch)
    kernels = KernelRegistry(server)
    clock = ManualClock()
    activity = ServerActivity(context, kernels, server, clock)
    caller = await kernels.caller_in_browser(kernel_id)

    held = await context.call("request", {"spec": "1"}, caller)
    await activity.note()
    assert is_idle(server, kernel_id) == (True, True)

    waiting = await context.call("request", {"spec": "1/2"}, caller)
    assert waiting["lease"] is None
    forget_activity(server, kernel_id)
    await activity.note()
    assert is_idle(server, kernel_id) == (True, True), "it was looked a moment ago"
    clock.advance(LOOK_SECONDS)
    await activity.note()
    assert is_idle(server, kernel_id) == (False, False)

    request_id = waiting["request"]["id"]
    await context.call("cancel", {"request_id": request_id}, caller)
    forget_activity(server, kernel_id)
    clock.advance(LOOK_SECONDS)
    await activity.note()
    assert is_idle(server, kernel_id) == (True, True)
    lease = held["lease"]
    await context.call("release", {"lease_id": lease["id"]}, caller)
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


async def test_an_open_page_that_asks_is_no_activity_and_a_button_is(
    server: Any, ask: Ask
) -> None:
    forget_activity(server)
    await ask("GET", "host")
    await ask("GET", "leases")
    assert server.web_app.last_activity() == LONG_AGO
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    assert server.web_app.last_activity() > LONG_AGO
    await ask("DELETE", f"leases/{answer['lease']['id']}")
