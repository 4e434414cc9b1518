"""A Jupyter server as its own process, the way users start one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient

from tests.fakes.other_users import as_user

TOKEN = "a-token-for-tests"
BASE = "/a%20b/"


@dataclass(frozen=True)
class LiveServer:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def get(self, path: str) -> Any:
        """The JSON at `path`, below the base URL."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("api")
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.02)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def live_server(
    folder: Path,
    *arguments: str,
    extension: bool = True,
    uid: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[LiveServer]:
    """A server of its own, in `folder`, ended by SIGTERM (and killed if it does not
    listen to that).

    Args:
        uid: whose server it is; None for this test's own.
        variables: what its environment has beside.
    """
    port = free_port()
    extensions = {
        "jupyter_aistack": extension,
        "jupyter_server_terminals": False,
        "jupyterlab": False,
    }
    config = {
        "ServerApp": {
            "jpserver_extensions": extensions,
            "allow_unauthenticated_access": False,
        }
    }
    for name in ("config", "data", "runtime", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "AISTACK_LEDGER": f"sqlite:///{folder / 'ledger.sqlite'}",
        **(variables or {}),
    }
    command = [
        sys.executable, "-m", "jupyter_server", f"--port={port}", "--ServerApp.port_retries=0", "--no-browser",
        "--allow-root", f"--ServerApp.base_url={BASE}", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder / 'root'}", *arguments,
    ]  # fmt: skip
    if uid is not None:
        command = as_user(uid, command)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    server = LiveServer(
        url=f"http://127.0.0.1:{port}{BASE}", process=process, folder=folder
    )
    try:
        server.wait()
        yield server
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], seconds: float = 30) -> int:
    """Ask the process to end; its exit status, negative when it had to be killed."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def post(url: str, body: Any) -> Any:
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def wait_for_kernel(server: LiveServer, kernel_id: str) -> None:
    """Wait until a kernel answers; one that is stopped before that prints a traceback
    of its own.
    """
    client = BlockingKernelClient(
        connection_file=str(server.folder / "runtime" / f"kernel-{kernel_id}.json")
    )
    client.load_connection_file()
    client.start_channels(hb=False)
    client.kernel_info()
    assert client.get_shell_msg(timeout=60)["msg_type"] == "kernel_info_reply"
    client.stop_channels()
