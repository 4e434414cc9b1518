"""A Jupyter server and a kernel of it for the tour, spoken to as a browser does."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import AIStackError

JSON = dict[str, Any]
KERNEL = "aistack"
START_SECONDS = 120.0
CELL_SECONDS = 900.0
STOP_SECONDS = 20.0


class DemoFailed(AIStackError):
    """A step of the tour did not hold."""


@dataclass(frozen=True, kw_only=True)
class DemoServer:
    """A Jupyter server that was started for the demo."""

    url: str
    token: str

    def call(self, method: str, path: str, body: JSON | None = None) -> Any:
        """The answer of its REST interface; raises `DemoFailed` with its message."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"token {self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            message = json.loads(error.read() or b"{}").get("message") or error.reason
            raise DemoFailed(
                f"the Jupyter server answered {error.code} to {path}: {message}"
            ) from error


@contextlib.contextmanager
def demo_server(folder: Path) -> Iterator[DemoServer]:
    """A Jupyter server on `folder`, ended by its own pid."""
    server = DemoServer(url=f"http://127.0.0.1:{_free_port()}", token=uuid.uuid4().hex)
    port = server.url.rpartition(":")[2]
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        *allow_root(),
    ]
    log = folder / "server.log"
    with log.open("wb") as output:
        environment = {**os.environ, "JUPYTER_TOKEN": server.token}
        # Without a terminal, so that it does not ask whether Ctrl-C is meant.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force where it does not end in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except BaseException as error:  # Ctrl-C again: it must not be left running
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def _wait_until_ready(
    server: DemoServer, process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            server.call("GET", "/api")
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise DemoFailed(f"the Jupyter server did not start; its last words were:\n{tail}")


class DemoKernel:
    """A kernel of the server, spoken to as a browser does: through its websocket."""

    def __init__(self, server: DemoServer, path: str) -> None:
        self.server = server
        body = {
            "path": path,
            "name": path,
            "type": "notebook",
            "kernel": {"name": KERNEL},
        }
        self.session: JSON = server.call("POST", "/api/sessions", body)

    def __enter__(self) -> DemoKernel:
        import websocket

        url = f"ws{self.server.url[4:]}/api/kernels/{self.session['kernel']['id']}/channels"
        headers = {"Authorization": f"token {self.server.token}"}
        self.socket = websocket.create_connection(
            url, header=headers, timeout=CELL_SECONDS
        )
        self._ask("kernel_info_request", {})
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        # A server that has died took its kernels along.
        with contextlib.suppress(OSError, DemoFailed):
            self.server.call("DELETE", f"/api/sessions/{self.session['id']}")

    def execute(self, source: str) -> None:
        """Run one cell to its end; raises `DemoFailed` with the traceback when it
        fails.
        """
        self._run({"code": source})

    def evaluate(self, expression: str) -> str:
        """The text value of an expression in the kernel."""
        content = self._run({"code": "", "user_expressions": {"value": expression}})
        value = content["user_expressions"]["value"]
        if value["status"] != "ok":
            raise DemoFailed(
                f"the tour left no result: {value.get('ename')}: {value.get('evalue')}"
            )
        return str(ast.literal_eval(value["data"]["text/plain"]))

    def _run(self, content: JSON) -> JSON:
        reply = self._ask(
            "execute_request",
            {"silent": False, "store_history": True, "stop_on_error": True, **content},
        )
        if reply["status"] != "ok":
            raise DemoFailed(_failure(content["code"], reply))
        return reply

    def _ask(self, kind: str, content: JSON) -> JSON:
        """Send a request on the shell channel and return the content of its reply."""
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": kind,
            "session": uuid.uuid4().hex,
            "username": "demo",
            "version": "5.3",
            "date": "",
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        self.socket.send(json.dumps(message))
        deadline = time.monotonic() + CELL_SECONDS
        while True:
            answer = self._receive(deadline)
            if answer.get("channel") != "shell":
                continue
            if answer["parent_header"].get("msg_id") == message_id:
                reply: JSON = answer["content"]
                return reply

    def _receive(self, deadline: float) -> JSON:
        """The next message; a busy kernel sends many, so the time for all of them is
        limited.
        """
        import websocket

        try:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            answer: JSON = json.loads(self.socket.recv())
        except websocket.WebSocketTimeoutException as error:
            raise DemoFailed(
                f"a step took longer than {CELL_SECONDS:g} s and was given up"
            ) from error
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise DemoFailed(
                f"the connection to the kernel was lost: {error}"
            ) from error
        if _is_of_dead_kernel(answer):
            raise DemoFailed(
                "the kernel died during the step; it may have run out of memory"
            )
        return answer


def _is_of_dead_kernel(message: JSON) -> bool:
    if message.get("msg_type") != "status":
        return False
    return message["content"].get("execution_state") in ("restarting", "dead")


def _failure(source: str, reply: JSON) -> str:
    import re

    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(reply.get("traceback") or []))
    first = source.strip().splitlines()[0] if source.strip() else "(no code)"
    return f"the step that begins `{first}` failed: {reply.get('ename')}: {reply.get('evalue')}\n{trace}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_root() -> Sequence[str]:
    """The option that a Jupyter server needs under root; none for others."""
    return ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
