"""From request to lease with eight clients at once, beside gflow and Slurm on the same
machine in the same run.

Every system is asked by the same eight processes, which begin together: each asks for a
GPU, or an eighth of one, until it may use it, lets go of it, and asks again. Ours is
asked as kernels ask: over the Unix socket of a real Jupyter server, with eight
simulated GPUs and the default ledger on SQLite. gflow and Slurm are asked by their own
commands (``gbatch``, ``salloc``), which is how people ask them; the time is until the
job's first line runs. Of several rounds the middle one counts, as Slurm's swing.

``ratios.vs_gflow`` and ``ratios.vs_slurm`` are **their p50 over ours**: how many times
faster we are, so more is better. A peer that is not installed is shown with the command
that installs it, and its ratio is null; ``--install`` installs both.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from tests.benchmarks import peers
from tests.benchmarks.harness import Report, main, percentile

CLIENTS = 8
EACH = {"ours": 25, "gflow": 5, "slurm": 5}
"""Requests of one client in one round; the peers take far longer over theirs."""
START_SECONDS = 60.0
SERVER = [
    "--ServerApp.open_browser=False",
    "--ServerApp.allow_root=True",
    "--ServerApp.port=0",
    "--IdentityProvider.token=",
    "--ServerApp.jpserver_extensions={'jupyter_aistack': True, 'jupyterlab': False, 'jupyter_server_terminals': False}",
]


class Client(Protocol):
    """Asks one system; it is sent to the processes that do."""

    def request(self) -> float:
        """Milliseconds until the lease was there; it is given back before this
        returns.
        """


@dataclass(frozen=True, kw_only=True)
class Ours:
    """Asks a Jupyter server as the library does in a kernel."""

    socket: str

    def request(self) -> float:
        from jupyter_aistack.client.client import Client as OwnClient
        from jupyter_aistack.client.transports import SocketTransport

        client = OwnClient(SocketTransport(self.socket))
        begin = time.perf_counter()
        lease = client.request("1/8", attach=False)
        elapsed = time.perf_counter() - begin
        assert lease.is_granted
        lease.release()
        return elapsed * 1000


@contextmanager
def jupyter_server() -> Iterator[Ours]:
    """A Jupyter server with the extension, in a folder of its own."""
    with TemporaryDirectory(prefix="bench-") as folder:
        names = ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
        own = {
            "AISTACK_LEDGER": f"sqlite:///{folder}/ledger.sqlite",
            "AISTACK_PROVIDERS": "simulated:8xH100-80GB",
        }
        env = {**os.environ, **dict.fromkeys(names, folder), **own}
        with Path(folder, "log").open("wb") as log:
            command = [sys.executable, "-m", "jupyter_server", *SERVER]
            process = subprocess.Popen(
                command, env=env, cwd=folder, stdout=log, stderr=log
            )
        try:
            yield Ours(socket=_socket_of(process, Path(folder)))
        finally:
            process.terminate()
            process.wait()


def _socket_of(process: subprocess.Popen[bytes], folder: Path) -> str:
    socket, deadline = (
        folder / f"aistack-{process.pid}.sock",
        time.monotonic() + START_SECONDS,
    )
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the server did not start: {(folder / 'log').read_text()}"
            )
        time.sleep(0.02)
    return str(socket)


SYSTEMS: Mapping[str, Callable[[], AbstractContextManager[Client]]] = {
    "ours": jupyter_server,
    "gflow": peers.gflow,
    "slurm": peers.slurm,
}

_start: Barrier


def _prepare(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _ask(client: Client, times: int) -> list[float]:
    """One client's share of a round, begun together with the others'."""
    _start.wait(START_SECONDS)
    return [client.request() for _ in range(times)]


def all_at_once(pool: Pool, client: Client, times: int) -> list[float]:
    """What every request of every client took. A process takes one share only: it waits
    for the others to have one.
    """
    shares = pool.starmap_async(_ask, [(client, times)] * CLIENTS, chunksize=1)
    return [took for share in shares.get() for took in share]


def started(stack: ExitStack) -> dict[str, Client]:
    """The clients of all systems that are here; those that are not are named."""
    clients: dict[str, Client] = {}
    for name, start in SYSTEMS.items():
        try:
            clients[name] = stack.enter_context(start())
        except peers.MissingError as missing:
            print(f"{name} is missing: {missing}", file=sys.stderr)
    return clients


def measure(rounds: int) -> Report:
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pool = stack.enter_context(
            context.Pool(CLIENTS, _prepare, (context.Barrier(CLIENTS),))
        )
        clients = started(stack)
        for client in clients.values():
            all_at_once(pool, client, 1)
        result: dict[str, list[list[float]]] = {name: [] for name in clients}
        for number in range(rounds):
            for name in clients if number % 2 == 0 else reversed(clients):
                result[name].append(all_at_once(pool, clients[name], EACH[name]))
    return summary(result)


def summary(result: Mapping[str, Sequence[Sequence[float]]]) -> Report:
    """The report of what every request took, in milliseconds, by system and round; the
    middle round counts.
    """
    p50 = {name: median_of(rounds, 0.5) for name, rounds in result.items()}
    p99 = {name: median_of(rounds, 0.99) for name, rounds in result.items()}
    ratios: dict[str, float | None] = {
        f"vs_{name}": p50[name] / p50["ours"] if name in p50 else None
        for name in SYSTEMS
        if name != "ours"
    }
    ratios["p99_over_p50"] = p99["ours"] / p50["ours"]
    figures = {f"{name}_p50_ms": value for name, value in p50.items()}
    figures |= {f"{name}_p99_ms": value for name, value in p99.items()}
    goals = {"p99_over_p50": 5.0, "ours_p50_ms": 15.0}
    return Report(
        ratios=ratios,
        figures=figures,
        goals=goals,
        floors={"vs_gflow": 10.0, "vs_slurm": 20.0},
    )


def median_of(rounds: Sequence[Sequence[float]], share: float) -> float:
    return statistics.median(percentile(list(times), share) for times in rounds)


def install() -> None:
    """Install the peers."""
    for command in (peers.GFLOW_INSTALL, peers.SLURM_INSTALL):
        subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main("request_latency", measure, rounds=3, install=install)
