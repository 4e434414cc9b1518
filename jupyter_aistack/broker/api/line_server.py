"""A Unix socket that answers JSON objects, a line each, in order.

The operating system names the process at the other end (``SO_PEERCRED``); nothing that
it says of itself is believed, so no secret is needed. The Jupyter server's socket and
the host broker's are both of this kind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from jupyter_aistack.core.wire.json_body import read_object
from jupyter_aistack.exceptions import AIStackError, InvalidRequest
from jupyter_aistack.system.peer import Peer, peer_of

from .open_connections import ConnectionLimits, OpenConnections

JSON = dict[str, Any]
MAX_LINE_BYTES = 2**20
MAX_REFUSED_OPEN = 64
"""Connections that are kept open till a refused peer has said its first line."""
REFUSED_SECONDS = 2.0
"""How long each of them is."""


class LineSession(ABC):
    """What is known of one peer, and answers its lines."""

    @abstractmethod
    async def answer(self, message: JSON) -> JSON:
        """The line that answers a line. Raises `AIStackError` for an ``error``."""

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing
        """The connection has ended."""


class LineServer:
    """Answers connections on a socket. Use it from the event loop.

    Args:
        open_session: makes the session of a peer; what it raises is answered to the
            peer's first line, and ends the connection.
        log: where failures go that the peer cannot help.
        limits: what users and connections may take.
    """

    def __init__(
        self,
        open_session: Callable[[Peer], Awaitable[LineSession]],
        log: logging.Logger | logging.LoggerAdapter[Any],
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._open_session = open_session
        self._log = log
        self._limits = limits or ConnectionLimits()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = OpenConnections(self._limits)
        self._refused_open = 0

    async def start(self, listener: socket.socket) -> None:
        """Begin to answer on a socket that listens."""
        # The file is whose who has made it: systemd's stays when we end.
        keep_file: Any = (
            {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        )
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=MAX_LINE_BYTES, **keep_file
        )

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Stop listening, and end the connections. Closing twice is allowed."""
        self.stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- a connection ------------------------------------------------------------------

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve_peer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_peer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        transport = writer.transport
        refused = self._connections.admit(peer.uid, transport)
        if refused is not None:
            return await self._refuse(reader, writer, refused)
        try:
            await self._answer_lines(reader, writer, peer)
        finally:
            self._connections.remove(peer.uid, transport)

    async def _refuse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        error: AIStackError,
    ) -> None:
        """Answer a peer's first line with an error. It is waited for, but not for long,
        and not for many: closing before it comes breaks the peer's pipe.
        """
        await self._send(writer, _error(error))
        if self._refused_open >= MAX_REFUSED_OPEN:
            return
        self._refused_open += 1
        loop = asyncio.get_running_loop()
        timer = loop.call_later(REFUSED_SECONDS, writer.transport.abort)
        try:
            await reader.read(1)
        finally:
            timer.cancel()
            self._refused_open -= 1

    async def _answer_lines(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        session = await self._session_or_error(peer)
        try:
            while line := await _next_line(reader):
                # Refused only now: closing before the first call breaks its pipe.
                if isinstance(session, AIStackError):
                    return await self._send(writer, _error(session))
                await self._send(writer, await self._answer(line, session))
        except InvalidRequest as too_long:
            await self._send(writer, _error(too_long))
        finally:
            if isinstance(session, LineSession):
                session.close()

    async def _session_or_error(self, peer: Peer) -> LineSession | AIStackError:
        try:
            return await self._open_session(peer)
        except AIStackError as error:
            return error
        except Exception:
            return self._failure()

    async def _answer(self, line: bytes, session: LineSession) -> JSON:
        try:
            return await session.answer(read_object(line))
        except AIStackError as error:
            return _error(error)
        except Exception:
            return _error(self._failure())

    def _failure(self) -> AIStackError:
        """Log what is being handled, and say as much as the peer may know."""
        self._log.exception("a call on the socket failed")
        return AIStackError("the server failed to answer; its log says why")

    async def _send(self, writer: asyncio.StreamWriter, message: JSON) -> None:
        """Write a line. A peer that does not read is cut off."""
        writer.write(json.dumps(message).encode() + b"\n")
        seconds = self._limits.write_seconds
        if seconds is None:
            return await writer.drain()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, writer.transport.abort)
        try:
            await writer.drain()
        finally:
            timer.cancel()


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, empty at the end.

    Raises:
        InvalidRequest: it is too long. Its rest cannot be told from the next line, so
            the connection has to end.
    """
    try:
        return await reader.readline()
    except ValueError:
        raise InvalidRequest(
            f"a line may hold {MAX_LINE_BYTES} bytes", field="body"
        ) from None


def _error(error: AIStackError) -> JSON:
    return {"error": error.as_dict()}
