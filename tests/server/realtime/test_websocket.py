"""The WebSocket, on a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.realtime.sampler import Sample
from jupyter_aistack.server.realtime.websocket import UpdatesWebSocket
from tests.fakes.rest_server import Ask


async def frame(socket: Any, seconds: float = 10.0) -> Any:
    text = await asyncio.wait_for(socket.read_message(), seconds)
    assert text is not None, "the socket was closed"
    return json.loads(text)


async def frame_where(socket: Any, condition: Any) -> Any:
    """The first frame that meets `condition`; fails after a while."""
    async with asyncio.timeout(10):
        while not condition(result := await frame(socket)):
            pass
    return result


async def test_snapshot_comes_at_once_and_has_all_parts(
    server: Any, jp_ws_fetch: Any, ask: Ask
) -> None:
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    shown = await frame(socket)
    assert set(shown) == {"type", "host", "leases", "queue", "usage"}
    assert shown["type"] == "snapshot"
    assert shown["host"] == (await ask("GET", "host"))[1]
    socket.close()


async def test_change_is_shown_without_waiting_for_a_tick(
    server: Any, jp_ws_fetch: Any, ask: Ask
) -> None:
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    await frame(socket)
    await socket.write_message('{"interval": 60}')
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    shown = await frame_where(socket, lambda f: f["leases"])
    assert [lease["id"] for lease in shown["leases"]] == [answer["lease"]["id"]]
    await ask("DELETE", f"leases/{answer['lease']['id']}")
    await frame_where(socket, lambda f: not f["leases"])
    socket.close()


async def test_change_made_by_another_process_is_shown(
    server: Any, jp_ws_fetch: Any, context: ServerContext
) -> None:
    from jupyter_aistack.testing import holder

    socket = await jp_ws_fetch("aistack/api/v1/stream")
    await frame(socket)
    request = context.broker.submit(
        "1/4", holder(host=context.broker.host)
    )  # past the context, as another broker would
    shown = await frame_where(socket, lambda f: f["leases"])
    assert shown["leases"][0]["id"] == request.lease_id
    socket.close()


async def test_frames_keep_coming(server: Any, jp_ws_fetch: Any) -> None:
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    first, second = await frame(socket), await frame(socket)
    assert second["usage"]["at"] > first["usage"]["at"]
    socket.close()


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("hello", "JSON"),
        ("[1]", "object"),
        ("{}", "interval"),
        ('{"interval": 0}', "interval"),
        ('{"interval": 61}', "interval"),
        ('{"interval": "fast"}', "interval"),
        ('{"verb": "release"}', "verb"),
    ],
)
async def test_message_that_makes_no_sense_is_answered_and_ignored(
    server: Any, jp_ws_fetch: Any, message: str, word: str
) -> None:
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    await frame(socket)
    await socket.write_message(message)
    answer = await frame_where(socket, lambda f: f["type"] == "error")
    assert answer["error"]["code"] == "InvalidRequest"
    assert word in answer["error"]["message"]
    assert (await frame_where(socket, lambda f: f["type"] == "snapshot"))["host"]
    socket.close()


async def test_broker_that_cannot_be_built_is_explained_on_the_stream(
    server: Any, jp_ws_fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"this is no database" * 1000)
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{broken}")
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    shown = await frame(socket)
    assert shown["type"] == "error"
    assert "ledger" in shown["error"]["message"]
    socket.close()


async def test_watching_ends_with_the_socket(
    server: Any, jp_ws_fetch: Any, context: ServerContext
) -> None:
    from tests.fakes.waiting import until

    sampler = next(
        iter(server.extension_manager.extension_apps["jupyter_aistack"])
    )._sampler
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    await frame(socket)
    assert len(sampler._watches) == 1
    socket.close()
    await until(lambda: not sampler._watches)


async def test_slow_reader_misses_frames_but_gets_the_newest() -> None:
    stream = UpdatesWebSocket.__new__(UpdatesWebSocket)
    stream._loop = asyncio.get_running_loop()
    sent: list[str] = []
    gate = asyncio.Event()

    async def write(text: str) -> None:
        sent.append(text)
        await gate.wait()

    stream.write_message = write  # type: ignore[method-assign, assignment]
    for number in range(100):
        stream._show(Sample(data={}, text=str(number), revision=number, at=0.0))
        await asyncio.sleep(0)
    gate.set()
    while stream._is_sending:
        await asyncio.sleep(0)
    assert sent == ["0", "99"]
