"""From request to lease and back, embedded on SQLite, beside the bare ledger
transactions it needs, and at the host's broker: of a script, and through a Jupyter
server.

The peer is what no broker could do without: two write transactions on the same kind of
SQLite file (queue the request, grant it), through the standard library's driver.

What the host's broker costs is what its way takes beside the same way without it, in
turns: a script that asks it and one with a broker of its own, a notebook whose server
asks it and one whose server has a broker of its own.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_aistack.client.client import Client
from jupyter_aistack.client.embedded import EmbeddedTransport
from jupyter_aistack.client.transports import BrokerTransport, SocketTransport
from tests.benchmarks.harness import Report, interleaved, main, percentile
from tests.fakes.host_broker import live_broker
from tests.fakes.live_server import live_server
from tests.fakes.waiting import wait_until

EACH = 20
PROVIDERS = "simulated:8xH100-80GB"


def ours(client: Client) -> Callable[[], float]:
    """The median of a few requests, in milliseconds; the release is not counted."""

    def run() -> float:
        return statistics.median(_one(client) for _ in range(EACH))

    return run


def _one(client: Client) -> float:
    start = time.perf_counter()
    lease = client.request("1/8", attach=False)
    elapsed = (time.perf_counter() - start) * 1000
    lease.release()
    return elapsed


def bare(path: Path) -> Callable[[], float]:
    """The same number of write transactions, and nothing else."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, body TEXT)")

    def run() -> float:
        return statistics.median(_write_twice(connection) for _ in range(EACH))

    return run


def _write_twice(connection: sqlite3.Connection) -> float:
    start = time.perf_counter()
    for _ in range(2):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO record (body) VALUES (?)", ("x" * 500,))
        connection.execute("COMMIT")
    return (time.perf_counter() - start) * 1000


@contextmanager
def server_client(folder: Path, broker: str) -> Iterator[Client]:
    """A client of a Jupyter server of its own, which asks a broker, or with ``off`` has
    one itself.
    """
    with live_server(folder, variables={"AISTACK_BROKER": broker}):
        sockets = folder / "runtime"
        (path,) = wait_until(lambda: list(sockets.glob("aistack-*.sock")))
        yield Client(SocketTransport(str(path)))


@contextmanager
def clients_in(folder: Path) -> Iterator[dict[str, Client]]:
    """A client for each way, by its name."""
    os.environ["AISTACK_LEDGER"] = f"sqlite:///{folder}/ledger.sqlite"
    os.environ["AISTACK_PROVIDERS"] = PROVIDERS
    os.environ["AISTACK_BROKER"] = "off"
    os.environ.pop("AISTACK_SOCKET", None)
    host = {"AISTACK_PROVIDERS": PROVIDERS}
    embedded = Client(EmbeddedTransport())
    with (
        live_broker(folder / "host", environment=host) as broker,
        server_client(folder / "own", "off") as server,
        server_client(folder / "asking", str(broker.path)) as server_at_broker,
    ):
        yield {
            "embedded": embedded,
            "host_broker": Client(BrokerTransport(str(broker.path))),
            "server": server,
            "server_and_host_broker": server_at_broker,
        }
    embedded.close()


def measure(rounds: int) -> Report:
    with tempfile.TemporaryDirectory(prefix="lease-", dir="/tmp") as name:
        folder = Path(name)
        with clients_in(folder) as clients:
            contenders = {way: ours(client) for way, client in clients.items()}
            contenders["bare"] = bare(folder / "bare.sqlite")
            medians = {
                way: statistics.median(values)
                for way, values in interleaved(contenders, rounds).items()
            }
            single = [_one(clients["embedded"]) for _ in range(EACH * rounds)]
    figures = {
        "p50_ms": percentile(single, 0.5),
        "p99_ms": percentile(single, 0.99),
        "two_bare_transactions_ms": medians["bare"],
        "host_broker_ms": medians["host_broker"],
        "server_ms": medians["server"],
        "server_and_host_broker_ms": medians["server_and_host_broker"],
    }
    behind_server = medians["server_and_host_broker"]
    ratios = {
        "vs_bare_transactions": medians["embedded"] / medians["bare"],
        "host_broker_vs_embedded": medians["host_broker"] / medians["embedded"],
        "server_and_host_broker_vs_server": behind_server / medians["server"],
        "server_and_host_broker_vs_embedded": behind_server / medians["embedded"],
    }
    goals = {
        "p50_ms": 3,
        "host_broker_vs_embedded": 1.5,
        "server_and_host_broker_vs_server": 1.5,
        "server_and_host_broker_vs_embedded": 1.5,
    }
    return Report(ratios=ratios, figures=figures, goals=goals)


if __name__ == "__main__":
    main("lease_latency", measure, rounds=15)
