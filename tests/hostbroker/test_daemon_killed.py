"""A host broker that is killed in every phase of a lease, with twenty holders of four
users, and started again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.system.files import write_atomic
from tests.fakes.dying_broker import CLOCK_FILE, FILE, POINTS, TURNS_FILE
from tests.fakes.host_broker import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    LiveBroker,
    Speaker,
    live_broker,
)
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)
USERS = (ALICE, BOB, CAROL, DAVE)
HOLDERS = 20
SETTINGS = """
c.AIStack.queues = {"default": {"suspend": True, "idle": False}}
c.AIStack.cycle_seconds = 0.2
"""


class Kernel:
    """A process that a Jupyter server of its user speaks for."""

    def __init__(self, speaker: Speaker, number: int) -> None:
        self.speaker = speaker
        self.caller = {
            "pid": speaker.pid,
            "kernel_id": f"k-{number}",
            "kernel_pid": speaker.pid,
        }
        self.number = number

    def say(self, verb: str, **payload: Any) -> Any:
        return self.speaker.say(verb, caller=self.caller, **payload)

    def ask(self, verb: str, **payload: Any) -> Any:
        answer = self.say(verb, **payload)
        assert "result" in answer, answer
        return answer["result"]

    def request(self) -> Any:
        return self.say("request", spec="1/4", idempotency_key=f"key-{self.number}")


class Host:
    """A broker that may die, and its kernels."""

    def __init__(self, broker: LiveBroker) -> None:
        self.broker = broker
        self.kernels: list[Kernel] = []
        self.held: dict[str, int] = {}

    def kernel(self) -> Kernel:
        number = len(self.kernels)
        kernel = Kernel(self.broker.speaker(USERS[number % len(USERS)]), number)
        self.kernels.append(kernel)
        return kernel

    def holder(self) -> tuple[Kernel, Any]:
        """A kernel whose lease is in use."""
        kernel = self.kernel()
        lease = kernel.request()["result"]["lease"]
        lease = kernel.ask(
            "activate", lease_id=lease["id"], token=lease["token"], verified=True
        )
        self.held[lease["id"]] = lease["token"]
        return kernel, lease

    def kill_at(self, moment: str, point: str) -> None:
        (self.broker.folder / FILE).write_text(f"{moment} {point}")

    def restart(self) -> None:
        """Start it again after it died at its point, and check that nothing is lost."""
        assert self.broker.process is not None
        assert self.broker.process.wait(60) == -9
        assert not (self.broker.folder / FILE).exists()
        self.broker.start()
        self.check()

    def leases(self) -> list[Any]:
        return list(self.broker.speaker().ask("leases")["leases"])

    def check(self) -> None:
        """Every lease that was in use is as it was, and nothing is granted twice."""
        leases = self.leases()
        tokens = {lease["id"]: lease["token"] for lease in leases}
        assert self.held.items() <= tokens.items()
        shares: Counter[str] = Counter()
        for lease in leases:
            for slice_ in lease["slices"]:
                shares[slice_["device_id"]] += Fraction(slice_["fraction"])  # type: ignore[assignment]
        assert max(shares.values()) <= 1
        holders = Counter(lease["holder"]["id"] for lease in leases)
        assert set(holders.values()) == {1}


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    file = folder / "aistack_config.py"
    file.write_text(SETTINGS)
    with live_broker(
        folder,
        "--config",
        str(file),
        program=("tests.fakes.dying_broker", str(folder)),
        environment={"AISTACK_PROVIDERS": "simulated:8xH100-80GB"},
    ) as broker:
        host = Host(broker)
        for _ in range(HOLDERS):
            host.holder()
        host.check()
        yield host


def test_no_lease_is_lost_or_doubled_wherever_the_broker_is_killed(host: Host) -> None:
    for moment in ("before", "after"):
        submitted(host, moment)
        prepared(host, moment)
        activated(host, moment)
        released(host, moment)
        moved(host, moment)
    assert len(POINTS) == 5
    assert len(host.leases()) == len(host.held)
    for kernel in host.kernels:  # all of them still live: none was told to end
        assert kernel.speaker.process.poll() is None


def submitted(host: Host, moment: str) -> None:
    kernel = host.kernel()
    host.kill_at(moment, "submitting")
    assert "result" not in kernel.request()
    host.restart()
    settle(host, kernel)


def prepared(host: Host, moment: str) -> None:
    kernel = host.kernel()
    host.kill_at(moment, "preparing")
    assert "result" not in kernel.request()
    host.restart()
    settle(host, kernel)


def settle(host: Host, kernel: Kernel) -> None:
    """The same request, repeated as clients do, brings the one lease."""
    lease = kernel.request()["result"]["lease"]
    own = [
        each for each in host.leases() if each["holder"]["id"] == f"k-{kernel.number}"
    ]
    assert [each["id"] for each in own] == [lease["id"]]
    kernel.ask("activate", lease_id=lease["id"], token=lease["token"], verified=True)
    host.held[lease["id"]] = lease["token"]


def activated(host: Host, moment: str) -> None:
    kernel = host.kernel()
    lease = kernel.request()["result"]["lease"]
    activation = {"lease_id": lease["id"], "token": lease["token"], "verified": True}
    host.kill_at(moment, "activating")
    kernel.say("activate", **activation)
    host.restart()
    assert kernel.ask("activate", **activation)["state"] == "active"
    host.held[lease["id"]] = lease["token"]


def released(host: Host, moment: str) -> None:
    kernel, lease = host.holder()
    host.kill_at(moment, "releasing")
    kernel.say("release", lease_id=lease["id"])
    del host.held[lease["id"]]
    host.restart()
    assert kernel.ask("release", lease_id=lease["id"])["state"] == "ended"
    assert lease["id"] not in {each["id"] for each in host.leases()}


def moved(host: Host, moment: str) -> None:
    kernel, lease = host.holder()
    assert lease["residence"] is not None
    host.kill_at(moment, "moving")
    kernel.say("suspend", lease_id=lease["id"])
    host.restart()
    again = kernel.say("suspend", lease_id=lease["id"])
    assert "result" in again or again["error"]["code"] == "LeaseError", again
    (now,) = [each for each in host.leases() if each["id"] == lease["id"]]
    assert now["residence"]["phase"] == "parking"


def test_a_clock_that_jumps_ends_no_lease_and_serves_who_waits(host: Host) -> None:
    count = len(host.leases())
    free = 32 - count
    takers = [host.holder()[0] for _ in range(free)]
    waiting = host.kernel()
    asked = waiting.request()["result"]
    assert asked["lease"] is None
    for days in (30, -30, 0):
        write_atomic(host.broker.folder / CLOCK_FILE, str(days * 86400.0))
        before = turns(host)
        wait_until(lambda before=before: turns(host) > before + 1)
        host.check()
    taker = takers[0]
    (lease,) = taker.ask("mine")["leases"]
    taker.ask("release", lease_id=lease["id"])
    del host.held[lease["id"]]
    again = waiting.ask("wait_for", request_id=asked["request"]["id"])
    assert again["lease"] is not None
    host.check()


def turns(host: Host) -> int:
    """How often the broker has taken stock since its start."""
    return (host.broker.folder / TURNS_FILE).stat().st_size


def test_a_command_that_waits_goes_on_waiting_with_the_next_broker(host: Host) -> None:
    whole = host.kernel()
    answer = whole.say("request", spec="2")["result"]
    assert answer["lease"] is not None
    command = [sys.executable, "-m", "jupyter_aistack.cli", "request", "2"]
    environment = {**os.environ, "AISTACK_BROKER": str(host.broker.path)}
    with subprocess.Popen(
        [*command, "--", "/bin/echo", "granted"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        root = host.broker.speaker()
        wait_until(lambda: root.ask("queue")["queue"])
        host.broker.kill()
        host.broker.start()
        (queued,) = root.ask("queue")["queue"]
        assert queued["holder"]["pid"] == waiting.pid
        whole.ask("release", lease_id=answer["lease"]["id"])
        out, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, out) == (0, "granted\n"), errors
