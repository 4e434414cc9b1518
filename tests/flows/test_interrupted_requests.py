"""Ctrl-C at any moment of a request, twice, leaves no lease and no request."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.client.client import Client
from jupyter_aistack.client.embedded import EmbeddedTransport

TIMES = 30
LINES_OF_WAITING = 8_000
"""Lines of Python until a request that waits has asked a few times."""
GPU = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}


async def interrupted(spec: str, seed: int, lines: int, **env: str) -> list[Any]:
    """What was left each time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.fakes.interrupted", spec, str(seed), str(TIMES), str(lines)),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


def check(results: list[dict[str, Any]]) -> None:
    assert len(results) == TIMES
    assert sum(left["outcome"] == "interrupted" for left in results) > TIMES / 2
    left_behind = [
        left
        for left in results
        if left["attached"] or left["leases"] or left["requests"]
    ]
    assert left_behind == []
    assert [left for left in results if not left["is_as_before"]] == []


@pytest.mark.parametrize(("spec", "providers"), [("1/4", GPU), ("cpu:1", {})])
async def test_an_interrupt_of_a_request_leaves_nothing(
    spec: str, providers: dict[str, str]
) -> None:
    env = {"AISTACK_PROVIDERS": "cpu", **providers}
    check(await interrupted(spec, 1, 0, **env))


async def test_an_interrupt_of_a_request_that_waits_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", GPU["AISTACK_PROVIDERS"])
    client = Client(EmbeddedTransport())
    with client.request("1", attach=False):
        results = await interrupted("1/4", 2, LINES_OF_WAITING)
        assert client.queue() == []
    client.close()
    assert {left["outcome"] for left in results} == {"interrupted"}
    check(results)


async def test_an_interrupt_of_a_request_to_a_server_leaves_nothing(
    server: Any, broker: Broker
) -> None:
    socket = server.web_app.settings["aistack"].socket_path
    check(await interrupted("cpu:1", 3, 0, AISTACK_SOCKET=socket))
    assert broker.leases() == ()


async def test_an_interrupt_of_waiting_for_a_server_leaves_nothing(
    server: Any, broker: Broker
) -> None:
    socket = server.web_app.settings["aistack"].socket_path
    monopoly = Client(EmbeddedTransport())
    cores = len(os.sched_getaffinity(0))
    with monopoly.request(f"cpu:{cores}", attach=False):
        results = await interrupted("cpu:1", 4, 500, AISTACK_SOCKET=socket)
        assert monopoly.queue() == []
    monopoly.close()
    assert {left["outcome"] for left in results} == {"interrupted"}
    check(results)
