"""Jupyter servers of several users at one host broker: real servers, kernels and
users.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.host_broker import ALICE, BOB, LiveBroker, live_broker
from tests.fakes.kernel_server import SLEEPER, write_kernelspec
from tests.fakes.live_server import TOKEN, LiveServer, live_server
from tests.fakes.other_users import as_user, open_folder, why_not
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

API = "aistack/api/v1/"


@dataclass(frozen=True)
class Account:
    """A user with a Jupyter server."""

    uid: int
    server: LiveServer
    broker: LiveBroker

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer of the user's server, errors included."""
        request = urllib.request.Request(
            self.server.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def leases(self) -> list[Any]:
        """All leases of the host, as this user is shown them."""
        _, answer = self.rest("GET", API + "leases")
        leases: list[Any] = answer["leases"]
        return leases

    def own_lease(self) -> Any:
        """The lease of the user's own kernel; None for none."""
        for lease in self.leases():
            if lease["holder"]["user"] == f"uid-{self.uid}":
                return lease
        return None

    def start_kernel(self, name: str = "whole") -> str:
        status, kernel = self.rest("POST", "api/kernels", {"name": name})
        assert status == 201, kernel
        return str(kernel["id"])

    def end_kernel(self, kernel_id: str) -> None:
        status, _ = self.rest("DELETE", f"api/kernels/{kernel_id}")
        assert status == 204

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``jupyter aistack``, in a terminal of the user's."""
        command = [sys.executable, "-m", "jupyter_aistack.cli", *arguments]
        return subprocess.run(
            as_user(self.uid, command),
            env={**os.environ, "AISTACK_BROKER": str(self.broker.path)},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with open_folder() as path:
        yield path


@pytest.fixture
def host(folder: Path) -> Iterator[LiveBroker]:
    """A host broker with one GPU, where users do not see the names of others."""
    config = folder / "aistack_config.py"
    config.write_text("c.AIStack.show_names = False\nc.AIStack.cycle_seconds = 0.2\n")
    providers = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}
    with live_broker(folder, "--config", str(config), environment=providers) as broker:
        yield broker


@pytest.fixture
def account(host: LiveBroker, folder: Path) -> Iterator[Callable[[int], Account]]:
    """Starts a user's Jupyter server."""
    with ExitStack() as servers:

        def start(uid: int) -> Account:
            home = folder / str(uid)
            spec = {"slice": "gpu:1", "wait_seconds": 0}
            write_kernelspec(home / "data", "whole", spec, SLEEPER)
            server = live_server(
                home,
                "--AIStack.cycle_seconds=0.2",
                uid=uid,
                variables={"AISTACK_BROKER": str(host.path), "HOME": str(home)},
            )
            return Account(uid, servers.enter_context(server), host)

        yield start


def test_the_second_users_kernel_waits_for_the_firsts_and_neither_touches_the_others(
    account: Callable[[int], Account],
) -> None:
    alice = account(ALICE)
    bob = account(BOB)
    first = alice.start_kernel()
    held = alice.own_lease()
    assert (held["holder"]["id"], held["spec"]) == (first, "gpu:1")
    assert Path(f"/proc/{held['holder']['pid']}").stat().st_uid == ALICE

    second = bob.start_kernel()
    assert bob.own_lease() is None
    _, queue = bob.rest("GET", API + "queue")
    (waiting,) = queue["queue"]
    assert waiting["holder"]["id"] == second

    # Names are hidden here, and nothing of another's can be changed.
    assert [lease["holder"]["user"] for lease in bob.leases()] == ["someone"]
    _, queue = alice.rest("GET", API + "queue")
    assert [request["holder"]["user"] for request in queue["queue"]] == ["someone"]
    status, error = bob.rest("DELETE", API + f"leases/{held['id']}")
    assert (status, error["code"]) == (403, "PermissionDenied")
    status, error = alice.rest("DELETE", API + f"queue/{waiting['id']}")
    assert (status, error["code"]) == (403, "PermissionDenied")
    refused = bob.command("release", held["id"])
    assert refused.returncode == 1
    assert "another user" in refused.stderr
    assert alice.own_lease()["state"] in ("granted", "active")

    alice.end_kernel(first)
    wait_until(lambda: bob.own_lease() is not None)
    assert alice.leases()[0]["holder"]["user"] == "someone"
    shown = json.loads(bob.command("status", "--json").stdout)
    assert [lease["holder"]["id"] for lease in shown["leases"]] == [second]
    assert len(shown["devices"]) == 1
    bob.end_kernel(second)
    assert bob.leases() == []


def test_a_server_whose_broker_is_killed_says_since_when_and_goes_on_after_it(
    account: Callable[[int], Account], host: LiveBroker
) -> None:
    alice = account(ALICE)
    kernel_id = alice.start_kernel()
    before = alice.own_lease()
    host.kill()
    status, error = alice.rest("GET", API + "leases")
    assert status == 503
    assert "the host broker does not answer since" in error["message"]
    silent = alice.command("status")
    assert silent.returncode == 2
    assert "the host broker does not answer since" in silent.stderr

    host.start()
    wait_until(lambda: alice.rest("GET", API + "leases")[0] == 200)
    after = alice.own_lease()
    assert (after["id"], after["token"]) == (before["id"], before["token"])
    assert after["holder"]["pid"] == before["holder"]["pid"]
    alice.end_kernel(kernel_id)
    assert alice.leases() == []


def test_a_command_in_a_terminal_is_run_on_a_slice_and_gives_it_back(
    account: Callable[[int], Account],
) -> None:
    alice = account(ALICE)
    run = alice.command("request", "gpu:1/2", "--timeout", "0", "--", "true")
    assert run.returncode == 0, run.stderr
    assert alice.leases() == []
    alice.start_kernel()
    refused = alice.command("request", "gpu:1/2", "--timeout", "0", "--", "true")
    assert refused.returncode == 2
    assert len(alice.leases()) == 1
