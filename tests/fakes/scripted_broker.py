"""A host broker that answers as a test says, on a real Unix socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
Answer = Callable[[JSON], JSON | None]
"""Gives the answer to a call; None closes the connection without one."""


def echo(call: JSON) -> JSON:
    """The call itself as its answer."""
    return {"result": {"verb": call["verb"], **call["payload"]}}


class ScriptedBroker:
    """Listens on a socket, each connection in a thread.

    Args:
        path: where.
        answer: answers calls.
        hello: its first line.

    Attributes:
        lines: what every connection has lines, in order.
        connections: how many there were.
    """

    def __init__(
        self, path: Path, answer: Answer = echo, hello: JSON | None = None
    ) -> None:
        self.path = path
        self.lines: list[JSON] = []
        self.connections = 0
        self._answer = answer
        self._hello = hello or {"protocol": 1, "broker": "0.1", "host": "box", "pid": 7}
        self._open: list[socket.socket] = []
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(
                    target=self._serve, args=(connection,), daemon=True
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, ValueError),
            connection.makefile("rb") as lines,
        ):
            for number, line in enumerate(lines):
                message = json.loads(line)
                self.lines.append(message)
                answer = self._hello
                if number:
                    result = self._answer(message)
                    if result is None:
                        break
                    answer = result
                connection.sendall(json.dumps(answer).encode() + b"\n")
                if "error" in answer and not number:
                    break
        self._end(connection)

    @staticmethod
    def _end(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End like a process that is killed: connections are cut, the file stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            self._end(connection)
