"""From request to lease and back, embedded on SQLite, beside the bare ledger
transactions it needs.

The peer is what no broker could do without: two write transactions on the same kind of
SQLite file (queue the request,
grant it), through the standard library's driver.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jupyter_aistack.client.client import Client
from jupyter_aistack.client.embedded import EmbeddedTransport
from tests.benchmarks.harness import Report, interleaved, main, percentile

EACH = 20


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


def measure(rounds: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AISTACK_LEDGER"] = f"sqlite:///{folder}/ledger.sqlite"
        os.environ["AISTACK_PROVIDERS"] = "simulated:8xH100-80GB"
        os.environ.pop("AISTACK_SOCKET", None)
        client = Client(EmbeddedTransport())
        result = interleaved(
            {"ours": ours(client), "bare": bare(Path(folder) / "bare.sqlite")}, rounds
        )
        single = [_one(client) for _ in range(EACH * rounds)]
        client.close()
    figures = {
        "p50_ms": percentile(single, 0.5),
        "p99_ms": percentile(single, 0.99),
        "two_bare_transactions_ms": statistics.median(result["bare"]),
    }
    ratio = statistics.median(result["ours"]) / statistics.median(result["bare"])
    return Report(
        ratios={"vs_bare_transactions": ratio}, figures=figures, goals={"p50_ms": 3}
    )


if __name__ == "__main__":
    main("lease_latency", measure, rounds=15)
