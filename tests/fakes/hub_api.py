"""An HTTP server that answers for the API of a hub, by the token that it is shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], tuple[int, dict[str, str], bytes]]
"""Status, headers and body by the token."""
Answering = Callable[[Answer], str]
"""Starts a server that answers so; returns the address of the API."""
FORBIDDEN = 403


@contextmanager
def hub_api(answer: Answer, port: int = 0) -> Iterator[str]:
    """A server that answers so; gives the address of the API."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("token ")
            status, headers, body = answer(token)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hub/api"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def by_token(models: Mapping[str, Mapping[str, Any]]) -> Answer:
    """Answers as a hub that knows these tokens."""

    def answer(token: str) -> tuple[int, dict[str, str], bytes]:
        if token not in models:
            return FORBIDDEN, {}, b"{}"
        return 200, {}, json.dumps(models[token]).encode()

    return answer
