from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.api.line_server import (
    ConnectionLimits,
    LineServer,
    LineSession,
)
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.system.peer import Peer
from tests.fakes.waiting import wait_until

Open = Callable[[Peer], Awaitable[LineSession]]
MANY_BYTES = 2**22
"""More than a socket takes before it is read."""


class Echo(LineSession):
    """Answers with what was said, or with much."""

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("verb") == "much":
            return {"result": "x" * MANY_BYTES}
        if message.get("verb") == "fail":
            raise RuntimeError("a bug")
        return {"result": message}


async def echo(_peer: Peer) -> LineSession:
    return Echo()


@asynccontextmanager
async def serving(
    path: Path, open_session: Open = echo, **limits: Any
) -> AsyncIterator[LineServer]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    log = logging.getLogger("test")
    server = LineServer(open_session, log, ConnectionLimits(**limits))
    await server.start(listener)
    try:
        yield server
    finally:
        await server.close()


class Client:
    """One connection."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]):
        self.reader, self.writer = streams

    @classmethod
    async def connected(cls, path: Path) -> Client:
        return cls(await asyncio.open_unix_connection(str(path), limit=2**24))

    def send(self, message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        line = await asyncio.wait_for(self.reader.readline(), 30)
        return json.loads(line) if line else None

    async def ask(self, message: Any) -> Any:
        self.send(message)
        return await self.hear()


async def test_lines_that_come_together_are_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"):
        client = await Client.connected(tmp_path / "s")
        for number in range(3):
            client.send({"number": number})
        answers = [await client.hear() for _ in range(3)]
    assert [answer["result"]["number"] for answer in answers] == [0, 1, 2]


async def test_a_bug_is_answered_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"):
        client = await Client.connected(tmp_path / "s")
        failure = await client.ask({"verb": "fail"})
        assert failure["error"]["code"] == "AIStackError"
        assert "a bug" not in failure["error"]["message"]
        assert await client.ask({"x": 1}) == {"result": {"x": 1}}


async def test_a_peer_that_is_refused_hears_it_with_its_first_line(
    tmp_path: Path,
) -> None:
    async def refuse(_peer: Peer) -> LineSession:
        raise PermissionDenied("not you")

    async with serving(tmp_path / "s", refuse):
        client = await Client.connected(tmp_path / "s")
        assert (await client.ask({}))["error"]["message"] == "not you"
        assert await client.hear() is None


async def test_a_user_has_so_many_connections_and_gets_one_back_for_one_that_ends(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "s", connections_per_user=2):
        first, second = [await Client.connected(tmp_path / "s") for _ in range(2)]
        assert await first.ask({"x": 1}) == {"result": {"x": 1}}
        assert await second.ask({"x": 2}) == {"result": {"x": 2}}

        third = await Client.connected(tmp_path / "s")
        refused = await third.hear()
        assert refused["error"]["code"] == "Refused"
        assert "2 connections" in refused["error"]["message"]
        assert await third.hear() is None
        assert await first.ask({"x": 3}) == {"result": {"x": 3}}

        second.writer.close()
        await second.writer.wait_closed()
        while "error" in (await _said_to_new(tmp_path / "s")):
            await asyncio.sleep(0)


async def _said_to_new(path: Path) -> Any:
    client = await Client.connected(path)
    return await client.ask({"x": 4})


async def test_a_peer_that_does_not_read_is_cut_off_and_others_are_answered(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "s", write_seconds=0.05):
        deaf = await asyncio.to_thread(_deaf_client, tmp_path / "s")
        other = await Client.connected(tmp_path / "s")
        assert await other.ask({"x": 1}) == {"result": {"x": 1}}
        await asyncio.to_thread(_wait_till_cut_off, deaf)
        assert await other.ask({"x": 2}) == {"result": {"x": 2}}


def _wait_till_cut_off(client: socket.socket) -> None:
    """Nothing is read: the other end is gone when writing to it fails."""
    with client, contextlib.suppress(BrokenPipeError):
        wait_until(lambda: client.send(b" ") == 0)


def _deaf_client(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.sendall(b'{"verb": "much"}\n')
    return client


async def test_connections_that_are_open_go_on_when_no_new_ones_are_taken(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "s") as server:
        client = await Client.connected(tmp_path / "s")
        assert await client.ask({"x": 1}) == {"result": {"x": 1}}
        server.stop_listening()
        assert await client.ask({"x": 2}) == {"result": {"x": 2}}
