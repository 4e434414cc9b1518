"""What a long history costs: a request and a cycle on a ledger of which a million leases
have ended, and on a new ledger.

``kept`` has them in its tables, with their requests, an event each and a day's use each;
``archived`` is the same ledger after all that is old has left it for files. Both are
measured in turns with ``empty``.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.history import HistoryOptions
from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from tests.benchmarks.harness import Report, main

LEASES = 1_000_000
TIMES = 40
"""Requests of one round."""
HOLDER = Holder(kind=HolderKind.PROCESS, id="pid-1", user="ann", host="")
COPY = {
    "leases": ("token", "id", "request_id"),
    "requests": ("id", "lease_id"),
    "events": ("sequence", "lease_id", "request_id"),
    "charges": ("lease_id",),
}
"""Tables whose first row is repeated, and the columns that tell the copies apart."""


def broker_at(path: Path) -> Broker:
    """A broker of a simulated GPU, with its ledger and archive in a folder."""
    options = HistoryOptions(
        folder=path.parent / "archive",
        key_folder=path.parent,
        retention=Retention(seconds=90 * DAY_SECONDS),
    )
    return Broker(
        SQLLedger(f"sqlite:///{path}"),
        [SimulatedProvider("1xH100-80GB")],
        history=options,
        is_alive=lambda pid, since: True,
    )


def live_through(broker: Broker) -> str:
    """A request that is granted and released; its lease."""
    request = broker.submit("1/4", HOLDER)
    assert request.state is RequestState.GRANTED
    lease = broker.lease(request.lease_id)
    broker.release(lease.id, lease.token)
    return lease.id


def age(broker: Broker, path: Path, count: int) -> None:
    """Give a ledger a history: one lease of 100 days ago, repeated."""
    lease_id = live_through(broker)
    day = int(time.time() // DAY_SECONDS) - 100
    used = UsageRecord(
        host=broker.host, device_id="GPU-0", lease_id=lease_id, day=day, user="ann"
    )
    broker.ledger.settle(UsageSummary(charges=(used,)))
    long_ago = day * DAY_SECONDS
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for statement in (
            "DELETE FROM aistack_events WHERE sequence > 1",
            f"UPDATE aistack_events SET at = {long_ago}, digest = ''",
            f"UPDATE aistack_leases SET granted_at = {long_ago}, ended_at = {long_ago}",
            f"UPDATE aistack_requests SET submitted_at = {long_ago}",
        ):
            connection.exec_driver_sql(statement)
        for table, keys in COPY.items():
            connection.exec_driver_sql(_copies(connection, table, keys, count))
        connection.exec_driver_sql(
            f"UPDATE aistack_meta SET token = {count + 9}, event_digest = '',"
            f" event_sequence = {count}, chained_after = {count}"
        )
    engine.dispose()


def _copies(
    connection: sa.Connection, table: str, keys: tuple[str, ...], count: int
) -> str:
    """The statement that repeats the only row of a table."""
    columns = sa.inspect(connection).get_columns(f"aistack_{table}")
    names = [f'"{column["name"]}"' for column in columns]
    values = [_value(name.strip('"'), keys) for name in names]
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {count}) INSERT INTO aistack_{table} ({', '.join(names)})"
        f" SELECT {', '.join(values)} FROM n, (SELECT * FROM aistack_{table} LIMIT 1) t"
    )


def _value(name: str, keys: tuple[str, ...]) -> str:
    if name not in keys:
        return f't."{name}"'
    return "n.i" if name in ("token", "sequence") else f"t.\"{name}\" || '-' || n.i"


def measured(brokers: dict[str, Broker], rounds: int) -> dict[str, float]:
    """Medians in milliseconds, by ledger and figure; the ledgers take turns at each
    call. What other processes do meanwhile is in the times and not in the CPU's.
    """
    taken: dict[str, list[float]] = {}
    for _ in range(rounds * TIMES):
        for name, broker in brokers.items():
            start = time.perf_counter(), time.process_time()
            live_through(broker)
            middle = time.perf_counter(), time.process_time()
            broker.cycle()
            end = time.perf_counter(), time.process_time()
            figures = {
                "request": middle[0] - start[0],
                "request_cpu": middle[1] - start[1],
                "cycle": end[0] - middle[0],
                "cycle_cpu": end[1] - middle[1],
            }
            for figure, seconds in figures.items():
                taken.setdefault(f"{name}_{figure}_ms", []).append(seconds * 1000)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(rounds: int) -> Report:
    with TemporaryDirectory() as folder:
        for name in ("empty", "aged"):
            (Path(folder) / name).mkdir()
        empty = broker_at(Path(folder) / "empty" / "ledger.sqlite")
        aged = broker_at(Path(folder) / "aged" / "ledger.sqlite")
        return _report(empty, aged, Path(folder) / "aged" / "ledger.sqlite", rounds)


def _report(empty: Broker, aged: Broker, path: Path, rounds: int) -> Report:
    age(aged, path, LEASES)
    before = measured({"empty": empty, "kept": aged}, rounds)
    size = path.stat().st_size
    start = time.perf_counter()
    done = aged.history.archiver.run(None)
    seconds = time.perf_counter() - start
    after = measured({"empty": empty, "archived": aged}, rounds)
    files = sum(file.stat().st_size for file in (path.parent / "archive").iterdir())
    records = sum(done.counts.values())
    return Report(
        ratios={**_ratios("kept", before), **_ratios("archived", after)},
        figures={
            **before,
            **{name: value for name, value in after.items() if "archived" in name},
            "kept_mib": size / 2**20,
            "archive_mib": files / 2**20,
            "archived_records_per_second": records / seconds,
        },
        goals=dict.fromkeys(
            ("kept_request_cpu", "archived_request_cpu", "archived_cycle_cpu"), 1.2
        ),
    )


def _ratios(name: str, figures: dict[str, float]) -> dict[str, float]:
    return {
        f"{name}_{figure}": figures[f"{name}_{figure}_ms"]
        / figures[f"empty_{figure}_ms"]
        for figure in ("request", "request_cpu", "cycle", "cycle_cpu")
    }


if __name__ == "__main__":
    main("history", measure, rounds=5)
