"""A tracking server that speaks MLflow's REST, as far as a run needs it, and can be
down.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

STATE: dict[str, Any] = {"lifecycle_stage": "active"}


class TrackingServer(http.server.ThreadingHTTPServer):
    """Attributes:
    status: what is answered: 200, or an error.
    hangs: nothing is answered before this is set; None answers at once.
    points: the metrics written, as MLflow sends them.
    ends: the states a run was put into.
    requests: how many requests came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.hangs: threading.Event | None = None
        self.points: list[dict[str, Any]] = []
        self.ends: list[str] = []
        self.requests = 0

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, verb: str, sent: dict[str, Any]) -> dict[str, Any]:
        """What MLflow answers to a call."""
        info = {"run_id": "a" * 32, "run_uuid": "a" * 32, "experiment_id": "7", **STATE}
        if verb == "experiments/get-by-name":
            return {"experiment": {"experiment_id": "7", "name": "x", **STATE}}
        if verb == "runs/log-batch":
            self.points += sent.get("metrics", [])
            return {}
        if verb == "runs/update":
            self.ends.append(sent["status"])
            return {"run_info": info}
        return {"run": {"info": info, "data": {}}}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TrackingServer

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._reply(json.loads(self.rfile.read(length) or b"{}"))

    def _reply(self, sent: dict[str, Any]) -> None:
        self.server.requests += 1
        if self.server.hangs is not None:
            self.server.hangs.wait(60)
        verb = self.path.partition("?")[0].rpartition("/mlflow/")[2]
        is_well = self.server.status == 200
        body = json.dumps(self.server.answer(verb, sent) if is_well else {}).encode()
        with contextlib.suppress(OSError):  # who asked has gone
            self.send_response(self.server.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@contextlib.contextmanager
def tracking_server() -> Iterator[TrackingServer]:
    """A running server."""
    server = TrackingServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if server.hangs is not None:
            server.hangs.set()
        server.shutdown()
        server.server_close()
