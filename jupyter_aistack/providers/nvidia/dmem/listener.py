"""The root helper's socket: who asks is read off it."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jupyter_aistack.system.peer import peer_of

from .helper import Helper

MAX_LINE = 4096
PEER_SECONDS = 5.0
"""How long a client may take to send its whole question, however it is cut."""

MOST_CONNECTIONS = 16
"""Connections of one user at once: who opens more holds up nobody but themselves."""


class Listener(socketserver.ThreadingUnixStreamServer):
    """Takes one question on each connection. Any user may connect: each works in a part
    of the tree of their own.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, helper: Helper) -> None:
        self.helper = helper
        self._lock = threading.Lock()
        self._users: dict[Any, int] = {}
        self._open: Counter[int] = Counter()
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # left by a helper that was killed
        super().__init__(str(path), _Question)
        path.chmod(0o666)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the user who connected has few enough connections open."""
        try:
            uid = peer_of(request).uid
        except OSError:
            return False
        with self._lock:
            is_too_many = self._open[uid] >= MOST_CONNECTIONS
            if not is_too_many:
                self._open[uid] += 1
                self._users[request] = uid
        if is_too_many:
            _refuse(request, uid)
        return not is_too_many

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and count it no more."""
        with self._lock:
            uid = self._users.pop(request, None)
            if uid is not None:
                self._open[uid] -= 1
        super().shutdown_request(request)


def _refuse(connection: socket.socket, uid: int) -> None:
    message = f"user {uid} has {MOST_CONNECTIONS} connections open already"
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.send(json.dumps({"ok": False, "message": message}).encode() + b"\n")


class _Question(socketserver.StreamRequestHandler):
    server: Listener

    def handle(self) -> None:
        try:
            question = json.loads(self._line())
        except (OSError, ValueError):
            question = None
        asker = peer_of(self.connection).uid
        answer = self.server.helper.answer(asker, question)
        self.connection.settimeout(PEER_SECONDS)
        try:
            self.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:  # they did not wait for it
            return

    def _line(self) -> bytes:
        """The question's line. Raises `TimeoutError` when it is not there in time."""
        deadline = time.monotonic() + PEER_SECONDS
        received = b""
        while b"\n" not in received and len(received) < MAX_LINE:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self.connection.settimeout(remaining)
            part = self.connection.recv(MAX_LINE)
            if not part:
                break
            received += part
        return received.partition(b"\n")[0]
