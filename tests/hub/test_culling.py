"""JupyterHub's idle culler beside our queue: a server is kept while its user waits for
a slice, and ended when it only holds one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.jupyterhub import Hub, HubUser, running_hub
from tests.fakes.live_server import end
from tests.fakes.waiting import wait_until

from .asking import ask_for_kernel, leases

IDLE_SECONDS = 10
CULLER = "a-token-of-the-culler"
SETTINGS = f"""
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{{folder}}/home/{{{{username}}}}"
c.Spawner.environment = {{{{
    "AISTACK_BROKER": "off",
    "AISTACK_PROVIDERS": "simulated:1xH100-80GB",
    "AISTACK_LEDGER": "sqlite:///{{folder}}/ledger.sqlite",
    "JUPYTERHUB_ACTIVITY_INTERVAL": "1",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}}}}
c.Spawner.args = ["--allow-root"]
services.append({{{{"name": "culler", "api_token": "{CULLER}"}}}})
roles.append({{{{
    "name": "culler",
    "services": ["culler"],
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
}}}})
"""


@pytest.fixture
def hub(open_folder: Path) -> Iterator[Hub]:
    with running_hub(open_folder, SETTINGS.format(folder=open_folder)) as running:
        yield running


@pytest.fixture
def script(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{open_folder}/ledger.sqlite")
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    running = Script()
    yield running
    running.end()


@contextmanager
def culler(hub: Hub) -> Iterator[None]:
    """The culler, as a service that the hub does not start itself."""
    command = [sys.executable, "-m", "jupyterhub_idle_culler", f"--url={hub.api_url}"]
    process = subprocess.Popen(
        [*command, f"--timeout={IDLE_SECONDS}", "--cull-every=1"],
        env={**os.environ, "JUPYTERHUB_API_TOKEN": CULLER},
    )
    yield
    end(process)


class Script:
    """A program in a terminal that holds a part of the GPU until it is ended."""

    def __init__(self) -> None:
        hold = "import time; print('holds', flush=True); time.sleep(3600)"
        command = [sys.executable, "-m", "jupyter_aistack.cli", "request", "1/4"]
        self._process = subprocess.Popen(
            [*command, "--", sys.executable, "-c", hold], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, b"")
        assert any(b"holds" in line for line in lines)

    def end(self) -> None:
        """End it, and its lease with it."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        end(self._process)


def last_activity(user: HubUser) -> datetime:
    server = user.hub.user(user.name)["servers"][""]
    return datetime.fromisoformat(server["last_activity"])


def test_who_waits_is_kept_and_who_only_holds_is_not(hub: Hub, script: Script) -> None:
    alice = hub.login("alice")
    bob = hub.login("bob")
    alice.start_server()
    bob.start_server()

    assert ask_for_kernel(bob, "1/4")["lease"] is not None
    assert ask_for_kernel(alice, "1")["lease"] is None
    # Servers tell the hub in their own time, which on a busy machine is as long as one
    # may be idle.
    asked_at = datetime.now(UTC)
    wait_until(lambda: last_activity(alice) > asked_at, 120, hub.log)

    with culler(hub):
        wait_until(lambda: not bob.has_server(), 120, hub.log)
        # Much longer than a server may be idle, and told to the hub by nobody but us.
        kept = asked_at + timedelta(seconds=IDLE_SECONDS + 5)
        wait_until(lambda: last_activity(alice) > kept, 120, hub.log)
        held = [lease["spec"] for lease in leases(alice)]
        assert held == ["1/4"], "what bob held has come back"

        script.end()
        wait_until(lambda: not alice.has_server(), 120, hub.log)
