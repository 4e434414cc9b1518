"""The root helper's socket: who asks is read off it."""

from __future__ import annotations

import json
import socketserver
from pathlib import Path

from jupyter_aistack.system.peer import peer_of

from .helper import Helper

MAX_LINE = 4096
PEER_SECONDS = 5.0
"""How long a client may take to send a question."""


class Listener(socketserver.ThreadingUnixStreamServer):
    """Takes one question on each connection. Any user may connect: each works in a part
    of the tree of their own.
    """

    daemon_threads = True

    def __init__(self, path: Path, helper: Helper) -> None:
        self.helper = helper
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # left by a helper that was killed
        super().__init__(str(path), _Question)
        path.chmod(0o666)


class _Question(socketserver.StreamRequestHandler):
    timeout = PEER_SECONDS
    server: Listener

    def handle(self) -> None:
        try:
            question = json.loads(self.rfile.readline(MAX_LINE))
        except (OSError, ValueError):
            question = None
        asker = peer_of(self.connection).uid
        answer = self.server.helper.answer(asker, question)
        try:
            self.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:  # they did not wait for it
            return
