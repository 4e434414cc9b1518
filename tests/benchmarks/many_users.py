"""200 kernels of 20 users on 8 simulated GPUs: one host broker, beside a broker in each
user's process as there are without one, on a ledger that all share.

Each user's process asks for its ten kernels, at moments spread over a few seconds; then
all is held and nothing happens; then each has a panel open that looks once a second. The
CPU time is that of what brokers there are: of the host broker, or of the 20 processes.
With a host broker the users are 20 uids; the others run as one, which costs the same.

Only root can become several users: elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from tests.benchmarks.harness import Report, main, percentile
from tests.fakes.host_broker import live_broker
from tests.fakes.other_users import as_user, why_not
from tests.paths import ROOT

DEVICES = "simulated:8xH100-80GB"
FIRST_UID = 23101
MEBIBYTE = 2**20
HOUR_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        users, kernels: how many users there are, and how many kernels each has.
        spec: what each kernel holds.
        spread_seconds: within so many seconds all ask.
        rest_seconds: so long nothing happens, and so long the panels are open.
    """

    users: int = 20
    kernels: int = 10
    spec: str = "1/25"
    spread_seconds: float = 10.0
    rest_seconds: float = 10.0


FULL = Scale()


@dataclass
class User:
    """A user's process, and how it is spoken to."""

    process: subprocess.Popen[str]

    def do(self, what: str, **facts: float) -> Any:
        """Have it do something, and wait for what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **facts}) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """Its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "a user's process has ended"
        return json.loads(line)

    def end(self) -> None:
        """End it and its kernels."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start_user(options: dict[str, Any], uid: int | None = None) -> User:
    """A user's process; it is not ready before it has answered once."""
    module = "tests.benchmarks.user_process"
    command = [sys.executable, "-m", module, json.dumps(options)]
    process = subprocess.Popen(
        command if uid is None else as_user(uid, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",  # other users may not enter the folder of this process
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return User(process)


@dataclass
class Contender:
    """Users, and the processes that are their brokers."""

    users: Sequence[User]
    brokers: Sequence[psutil.Process]

    @property
    def cpu_seconds(self) -> float:
        """What the brokers have used so far."""
        times = [broker.cpu_times() for broker in self.brokers]
        return sum(each.user + each.system for each in times)

    @property
    def memory_bytes(self) -> int:
        """What the brokers take of the memory, shared parts once for each."""
        return sum(broker.memory_info().rss for broker in self.brokers)

    def all_do(self, what: str, **facts: float) -> list[float]:
        """Have all users do something at once; what each call took, in milliseconds."""
        with ThreadPoolExecutor(len(self.users)) as pool:
            answers = list(pool.map(lambda user: user.do(what, **facts), self.users))
        return [took for answer in answers for took in answer.get("milliseconds", ())]


@contextmanager
def one_broker(scale: Scale) -> Iterator[Contender]:
    """The host broker, and users with uids of their own."""
    with ExitStack() as stack:
        prefix = "bench-broker-"
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=prefix)))
        environment = {"AISTACK_PROVIDERS": DEVICES}
        broker = stack.enter_context(live_broker(folder, environment=environment))
        options = {
            "socket": str(broker.path),
            "kernels": scale.kernels,
            "spec": scale.spec,
        }
        users = [
            _entered(stack, start_user(options, FIRST_UID + number))
            for number in range(scale.users)
        ]
        for user in users:
            user.hear()
        yield Contender(users, [psutil.Process(broker.pid)])


@contextmanager
def many_brokers(scale: Scale) -> Iterator[Contender]:
    """A broker in each user's process."""
    with ExitStack() as stack:
        prefix = "bench-brokers-"
        folder = stack.enter_context(TemporaryDirectory(prefix=prefix))
        options = {
            "url": f"sqlite:///{folder}/ledger.sqlite",
            "devices": DEVICES.removeprefix("simulated:"),
            "kernels": scale.kernels,
            "spec": scale.spec,
        }
        users = []
        for number in range(scale.users):
            user = start_user({**options, "user": f"user-{number}"})
            users.append(_entered(stack, user))
            user.hear()
        brokers = [psutil.Process(user.process.pid) for user in users]
        yield Contender(users, brokers)


def _entered(stack: ExitStack, user: User) -> User:
    stack.callback(user.end)
    return user


@dataclass
class Measured:
    """What one contender took, over all rounds."""

    waits: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    idle_cpu: list[float] = field(default_factory=list)
    watched_cpu: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    def add(self, contender: Contender, scale: Scale) -> None:
        """One round."""
        self.waits += contender.all_do("ask", seconds=scale.spread_seconds)

        def rest() -> None:
            time.sleep(scale.rest_seconds)

        def watch() -> None:
            looks = contender.all_do("watch", seconds=scale.rest_seconds)
            self.looks.extend(looks)

        self.idle_cpu.append(_cpu_per_hour(contender, rest))
        self.watched_cpu.append(_cpu_per_hour(contender, watch))
        self.memory_bytes.append(contender.memory_bytes)
        contender.all_do("release")

    def figures(self, name: str) -> dict[str, float]:
        """The figures, by names that begin with the contender's."""
        return {
            f"{name}_p50_ms": percentile(self.waits, 0.5),
            f"{name}_p99_ms": percentile(self.waits, 0.99),
            f"{name}_idle_cpu_s_per_h": percentile(self.idle_cpu, 0.5),
            f"{name}_panels_cpu_s_per_h": percentile(self.watched_cpu, 0.5),
            f"{name}_look_p50_ms": percentile(self.looks, 0.5),
            f"{name}_rss_mib": max(self.memory_bytes) / MEBIBYTE,
        }


def _cpu_per_hour(contender: Contender, act: Callable[[], None]) -> float:
    """CPU seconds in an hour of what is done."""
    cpu = contender.cpu_seconds
    begin = time.monotonic()
    act()
    used = contender.cpu_seconds - cpu
    return used / (time.monotonic() - begin) * HOUR_SECONDS


CONTENDERS = {"one": one_broker, "many": many_brokers}


def measure(rounds: int, scale: Scale = FULL) -> Report:
    """Both in turns."""
    measured = {name: Measured() for name in CONTENDERS}
    for number in range(rounds):
        names = list(CONTENDERS)
        for name in names if number % 2 == 0 else reversed(names):
            with CONTENDERS[name](scale) as contender:
                measured[name].add(contender, scale)
    figures: dict[str, float] = {}
    for name, result in measured.items():
        figures |= result.figures(name)
    kinds = ("p50_ms", "p99_ms", "idle_cpu_s_per_h", "panels_cpu_s_per_h", "rss_mib")
    ratios = {
        kind: figures[f"one_{kind}"] / max(figures[f"many_{kind}"], 1e-9)
        for kind in kinds
    }
    return Report(ratios=ratios, figures=figures, goals=dict.fromkeys(ratios, 1.0))


def run() -> None:
    """From the command line; skipped where there can be no several users."""
    why = why_not()
    if why:
        print(json.dumps({"skipped": why, "ratios": {}, "figures": {}}))
        return
    main("many_users", measure, rounds=1)


if __name__ == "__main__":
    run()
