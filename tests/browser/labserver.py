"""JupyterLab as its own process, with the extension as installed and nothing of the
user's.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVICES = "simulated:2xH100-80GB"
START_SECONDS = 120
# Seldom, a file that a closed page had asked for keeps a thread of the Jupyter server
# from ending.
STOP_SECONDS = 10
CLEAN_SECONDS = 120
OWN_FOLDERS = {
    "HOME": "home",
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
}
SETTINGS: dict[str, dict[str, Any]] = {
    # Nobody is asked about news, and the theme is that of the browser, so that a test
    # may choose it.
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/apputils-extension/themes": {"adaptive-theme": True},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


@dataclass(frozen=True, kw_only=True)
class LabServer:
    """A running JupyterLab."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def root(self) -> Path:
        """Where its notebooks are."""
        return self.folder / "work"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the server answers, None where it answers nothing."""
        headers = {"Authorization": f"token {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers=headers, data=data
        )
        with urllib.request.urlopen(request, timeout=CLEAN_SECONDS) as response:
            return json.loads(response.read() or b"null")

    def leases(self) -> list[dict[str, Any]]:
        """The live leases."""
        return list(self.call("GET", "aistack/api/v1/leases")["leases"])

    def queue(self) -> list[dict[str, Any]]:
        """The requests that wait."""
        return list(self.call("GET", "aistack/api/v1/queue")["queue"])

    def is_up(self) -> bool:
        """Whether it answers; fails with its last words when it has ended."""
        assert self.process.poll() is None, self.log()
        try:
            self.call("GET", "api")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def log(self) -> str:
        """The end of what it has written."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def clean(self) -> None:
        """End all kernels, and wait until nothing is held or asked for."""
        for session in self.call("GET", "api/sessions"):
            self.call("DELETE", f"api/sessions/{session['id']}")
        until(
            lambda: not self.leases() and not self.queue(),
            CLEAN_SECONDS,
            "a lease outlives its kernel",
        )


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Wait until `condition` holds; fail with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@contextmanager
def lab_server(
    folder: Path, *, devices: str = DEVICES, settings: dict[str, Any] | None = None
) -> Iterator[LabServer]:
    """A JupyterLab on such devices that keeps everything in `folder`; ended by SIGTERM,
    else killed.

    `settings` are those of our extension, the defaults unless given.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--config={_configure(folder, port, token, settings or {})}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(folder, devices), stdout=log, stderr=log
        )
    server = LabServer(
        url=f"http://127.0.0.1:{port}", token=token, process=process, folder=folder
    )
    try:
        until(server.is_up, START_SECONDS, "JupyterLab does not answer")
        yield server
    finally:
        _end(process)


def _configure(folder: Path, port: int, token: str, settings: dict[str, Any]) -> Path:
    for name in (*OWN_FOLDERS.values(), "work"):
        (folder / name).mkdir()
    for name, values in SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    config = {
        "AIStack": settings,
        "ServerApp": {
            "allow_root": True,
            "ip": "127.0.0.1",
            "open_browser": False,
            "port": port,
            "port_retries": 0,
            "root_dir": str(folder / "work"),
        },
        "IdentityProvider": {"token": token},
        "LabApp": {
            "expose_app_in_browser": True,
            "extension_manager": "readonly",
            "user_settings_dir": str(folder / "settings"),
            "workspaces_dir": str(folder / "workspaces"),
        },
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def _environment(folder: Path, devices: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "AISTACK", "MLFLOW"))
    }
    return {
        **kept,
        **{name: str(folder / place) for name, place in OWN_FOLDERS.items()},
        "AISTACK_LEDGER": f"sqlite:///{folder / 'ledger.sqlite'}",
        "AISTACK_PROVIDERS": devices,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
