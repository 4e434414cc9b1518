"""What only a ledger in a database must withstand: bad files, other versions, other
processes, sudden ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_aistack.core.accounting.charges import (
    MeterState,
    UsageRecord,
    UsageSummary,
)
from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    Severity,
    conditions_text,
    new_condition,
)
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.plan import Grant, Plan
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerConflict, LedgerUnavailable, SchemaMismatch
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.sql import postgresql, schema
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.paths import DATA

Wish = Callable[..., Request]
Granter = Callable[..., Lease]

fork = multiprocessing.get_context("fork")
# A child that is forked while another thread of this process is inside SQLite inherits
# its lock and hangs in `connect`. In a parallel run there may be such threads.
forks = pytest.mark.service


def at(path: Path) -> SQLLedger:
    return SQLLedger(f"sqlite:///{path}")


def refusal(ledger: Ledger, wish: Wish) -> LedgerUnavailable:
    """The one error with which every way into an unusable ledger is refused."""
    with pytest.raises(LedgerUnavailable) as reading:
        ledger.read("box", 0.0)
    with pytest.raises(LedgerUnavailable) as writing:
        ledger.submit(wish("r-1"))
    assert reading.value.message == writing.value.message
    assert "\n" not in reading.value.message
    assert reading.value.message.startswith("ledger_url: ")
    assert reading.value.facts["field"] == "ledger_url"
    return reading.value


# -- files -----------------------------------------------------------------------------


def test_a_new_ledger_and_its_folder_are_the_owners_alone(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    ledger = SQLLedger(f"sqlite:///{path}", is_default=True)
    before = os.umask(0)
    try:
        ledger.submit(wish("r-1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {
        stat.S_IMODE(beside.stat().st_mode) for beside in path.parent.iterdir()
    } == {0o600}


@pytest.mark.parametrize(
    ("folder", "file"),
    [(0o2770, 0o660), (0o2775, 0o660), (0o770, 0o600), (0o2750, 0o600), (0o777, 0o600)],
)
def test_a_ledger_in_a_folder_that_a_group_shares_is_the_groups(
    tmp_path: Path, wish: Wish, folder: int, file: int
) -> None:
    tmp_path.chmod(folder)
    before = os.umask(0o077)
    try:
        at(tmp_path / "ledger.sqlite").submit(wish("r-1"))
    finally:
        os.umask(before)
    modes = {
        beside.name: stat.S_IMODE(beside.stat().st_mode)
        for beside in tmp_path.glob("ledger.sqlite*")
    }
    assert modes == dict.fromkeys(
        ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), file
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two other users")
def test_two_users_of_a_group_write_the_same_ledger(
    open_folder: Path, wish: Wish
) -> None:
    shared, group = open_folder / "shared", 64_999
    shared.mkdir()
    os.chown(shared, 0, group)
    shared.chmod(0o2770)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE t' + sys.argv[2] + ' (x)');"
        "c.commit(); print(c.execute('SELECT count(*) FROM aistack_requests').fetchone()[0])"
    )
    ledger = at(shared / "ledger.sqlite")
    ledger.submit(wish("r-1"))
    assert os.stat(shared / "ledger.sqlite").st_gid == group

    def as_user(uid: int, gid: int) -> subprocess.CompletedProcess[str]:
        command = [
            "/usr/bin/python3",
            "-c",
            program,
            str(shared / "ledger.sqlite"),
            str(uid),
        ]
        return subprocess.run(
            command,
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    assert [as_user(uid, group).stdout for uid in (64_001, 64_002)] == ["1\n", "1\n"]
    assert "unable to open" in as_user(64_003, 64_003).stderr
    ledger.submit(wish("r-2"))


@pytest.mark.parametrize(
    "url",
    ["sqlite:///file:/srv/ledger.sqlite?uri=true", "sqlite:///file:ledger?mode=memory"],
)
def test_a_file_by_sqlites_own_rules_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        LedgerUnavailable, match=r"^ledger_url: .* names no file; write sqlite:///path"
    ):
        SQLLedger(url)
    assert list(tmp_path.iterdir()) == []


def test_a_question_mark_in_a_url_is_not_cut_off_with_the_rest(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"^ledger_url: .* write %3F$"):
        SQLLedger(f"sqlite:///{tmp_path}/a?b.sqlite")
    assert list(tmp_path.iterdir()) == []

    SQLLedger(f"sqlite:///{tmp_path}/a%3Fb.sqlite").events()
    assert "a?b.sqlite" in {each.name for each in tmp_path.iterdir()}


def test_building_a_ledger_touches_nothing(tmp_path: Path) -> None:
    at(tmp_path / "new" / "ledger.sqlite").close()
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_is_written_ahead(tmp_path: Path, wish: Wish) -> None:
    at(tmp_path / "ledger.sqlite").submit(wish("r-1"))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Root may write everywhere; the tests of what may not be written run as nobody."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


def test_a_folder_that_is_not_there_is_named_and_not_made(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "mistyped" / "ledger.sqlite"
    error = refusal(at(path), wish)
    assert error.message == (
        f"ledger_url: sqlite:///{path} is in a folder that does not exist; make the "
        "folder, or name a file elsewhere in AISTACK_LEDGER"
    )
    assert error.facts["problem"] == "no-folder"
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_new_is_said_to_be_unless_nobody_has_named_it(
    tmp_path: Path, wish: Wish, caplog: pytest.LogCaptureFixture
) -> None:
    named = at(tmp_path / "ledger.sqlite")
    named.submit(wish("r-1"))
    assert f"{named.shown_url} is a new ledger; " in caplog.text
    caplog.clear()
    at(tmp_path / "ledger.sqlite").submit(wish("r-2"))
    SQLLedger(f"sqlite:///{tmp_path}/own.sqlite", is_default=True).submit(wish("r-1"))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["ledger.sqlite", "sub/ledger.sqlite"])
def test_a_folder_that_cannot_be_written_is_named(
    open_folder: Path, wish: Wish, name: str
) -> None:
    open_folder.chmod(0o555)
    ledger = SQLLedger(f"sqlite:///{open_folder / name}", is_default=True)
    with without_roots_rights():
        error = refusal(ledger, wish)
    assert f"{open_folder / name} cannot be written by this user" in error.message


def test_a_file_that_cannot_be_written_is_named(open_folder: Path, wish: Wish) -> None:
    path = open_folder / "ledger.sqlite"
    at(path).submit(wish("r-0"))
    path.chmod(0o444)
    with (
        without_roots_rights(),
        pytest.raises(
            LedgerUnavailable, match=r"ledger\.sqlite cannot be written by this user"
        ),
    ):
        at(path).submit(wish("r-1"))


def test_a_directory_is_no_ledger(tmp_path: Path, wish: Wish) -> None:
    assert (
        f"{tmp_path} is a directory; name a file in it"
        in refusal(at(tmp_path), wish).message
    )


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path, wish: Wish) -> None:
    tmp_path.joinpath("file").write_text("")
    path = tmp_path / "file" / "ledger.sqlite"
    assert f"{path} cannot be written" in refusal(at(path), wish).message


def test_a_file_of_another_kind_is_refused_and_left_alone(
    tmp_path: Path, wish: Wish
) -> None:
    path, text = (
        tmp_path / "thesis.txt",
        "not a database, but long enough to look like one" * 99,
    )
    path.write_text(text)
    assert (
        f"{path} is damaged or not a ledger; move it away"
        in refusal(at(path), wish).message
    )
    assert path.read_text() == text


def test_a_ledger_damaged_later_is_refused_and_works_again_once_restored(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = at(path)
    ledger.submit(wish("r-1"))
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    assert "is damaged" in refusal(ledger, wish).message
    path.write_bytes(whole)
    assert ledger.request("r-1").id == "r-1"


def test_a_ledger_moved_away_while_open_is_begun_anew_and_not_written_unseen(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = at(path)
    ledger.submit(wish("r-1"))
    for beside in tmp_path.iterdir():
        beside.rename(beside.with_name("old-" + beside.name))
    ledger.submit(wish("r-2"))
    assert [request.id for request in at(path).read("box", 0.0).requests] == ["r-2"]


def test_tables_of_others_in_the_same_file_are_left_alone(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "shared.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (mine TEXT)")
    at(path).submit(wish("r-1"))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM events").fetchall() == []


def test_a_ledger_held_by_another_process_says_so(
    tmp_path: Path, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_aistack.ledger.sql.database.BUSY_SECONDS", 0.05)
    ledger = at(tmp_path / "ledger.sqlite")
    ledger.submit(wish("r-1"))
    with sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert ledger.request("r-1").id == "r-1"  # reading does not wait
        with pytest.raises(
            LedgerUnavailable, match="is held by another process; try again"
        ):
            ledger.submit(wish("r-2"))
    other.close()
    assert ledger.submit(wish("r-2")).id == "r-2"


# -- URLs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://u:hush@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:hush@h:port/d",
    ],
)
def test_a_url_of_no_ledger_is_refused_at_once(url: str) -> None:
    with pytest.raises(
        LedgerUnavailable, match=r"^ledger_url: .*write sqlite:///"
    ) as refused:
        SQLLedger(url)
    assert "hush" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named_without_the_password(
    wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "RETRY_SECONDS", 0.0)
    ledger = SQLLedger("postgresql://ann:hush@127.0.0.1:1/lab?password=hush2")
    error = refusal(ledger, wish)
    assert "postgresql+psycopg://ann@127.0.0.1:1/lab does not answer" in error.message
    assert "hush" not in f"{error.message} {error.facts} {ledger.shown_url}"


# -- versions --------------------------------------------------------------------------


WRITTEN = DATA / "ledgers"
"""Ledgers that earlier versions have written."""


def restore(url: str, version: int) -> None:
    """Put a ledger there as a version left it: a live lease, one that ends at 30, an
    ended one, and a request.
    """
    engine = sa.create_engine(url)
    text = (WRITTEN / f"version_{version}.{engine.dialect.name}.sql").read_text()
    connection = engine.raw_connection()
    if engine.dialect.name == "sqlite":
        connection.cursor().executescript(text)
    else:
        connection.cursor().execute(text)
    connection.commit()
    connection.close()
    engine.dispose()


def make_first_version(url: str) -> None:
    """Turn a current ledger into one as version 1 wrote it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in (
            "accounts",
            "reservations",
            "meters",
            "charges",
            "cells",
            "hosts",
            "host_reports",
            "device_faults",
            "archives",
        ):
            connection.exec_driver_sql(f"DROP TABLE aistack_{table}")
        drop_columns(connection, "aistack_events", ("device_id", *OF_AUDIT))
        drop_columns(connection, "aistack_meta", (*OF_CHAIN, "drains"))
        connection.exec_driver_sql("DROP INDEX ix_aistack_leases_due_at")
        connection.exec_driver_sql("DROP INDEX ix_aistack_leases_ended_at")
        connection.exec_driver_sql("DROP INDEX ix_aistack_requests_submitted_at")
        for column in ("due_at", "active_at", "notice", "residence"):
            connection.exec_driver_sql(
                f"ALTER TABLE aistack_leases DROP COLUMN {column}"
            )
        connection.exec_driver_sql("ALTER TABLE aistack_leases DROP COLUMN conditions")
        connection.exec_driver_sql("ALTER TABLE aistack_leases DROP COLUMN limits")
        for table in ("aistack_leases", "aistack_requests"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN up_to")
        connection.exec_driver_sql(
            "ALTER TABLE aistack_leases ADD COLUMN note TEXT NOT NULL DEFAULT ''"
        )
        connection.exec_driver_sql("ALTER TABLE aistack_requests DROP COLUMN code")
        connection.exec_driver_sql("DROP INDEX ix_aistack_requests_idempotency_key")
        connection.exec_driver_sql(
            "ALTER TABLE aistack_requests DROP COLUMN idempotency_key"
        )
        connection.exec_driver_sql("UPDATE aistack_meta SET schema_version = 1")
    engine.dispose()


OF_AUDIT = (
    *("owner", "before", "after", "user", "uid", "pid"),
    *("command", "host", "salt", "digest"),
)
OF_CHAIN = ("event_sequence", "event_digest", "chained_after")


def drop_columns(connection: sa.Connection, table: str, names: Iterable[str]) -> None:
    for name in names:
        connection.exec_driver_sql(f'ALTER TABLE {table} DROP COLUMN "{name}"')


def columns(url: str) -> dict[str, set[tuple[str, str]]]:
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found = {
        table: {
            (column["name"], str(column["type"]))
            for column in inspector.get_columns(table)
        }
        | {
            (str(index["name"]), str(index["column_names"]))
            for index in inspector.get_indexes(table)
        }
        for table in schema.metadata.tables
    }
    engine.dispose()
    return found


def what_happened(ledger: Ledger) -> list[tuple[int, EventKind, float, str]]:
    return [
        (event.sequence, event.kind, event.at, event.lease_id)
        for event in ledger.events()
    ]


def test_a_ledger_of_version_1_is_migrated_with_its_rows(
    url: str, wish: Wish, grant: Granter
) -> None:
    ledger = SQLLedger(url)
    kept = grant(ledger, wish("r-1"))
    limited = grant(ledger, wish("r-2"), ends_at=30.0)
    gone = ledger.step(grant(ledger, wish("r-3")).id, 3, LeaseTransition.FAIL, 1.0)
    ledger.submit(wish("r-4"))
    state = replace(ledger.read("box", 1.0), accounts=())  # version 1 kept none
    before, current = (state, what_happened(ledger)), columns(url)
    ledger.close()
    make_first_version(url)

    migrated = SQLLedger(url)
    assert (migrated.read("box", 1.0), what_happened(migrated)) == before
    assert columns(url) == current
    assert migrated.leases(45.0) == (kept,)
    assert migrated.lease(limited.id, 45.0).ended_at == 30.0
    assert migrated.lease(gone.id, 99.0) == gone
    assert migrated.leases(1e9) == (kept,), "time alone does not end it"
    migrated.close()


def test_a_ledger_that_version_2_has_written_is_migrated_with_its_rows(
    url: str, wish: Wish
) -> None:
    restore(url, 2)
    ledger = SQLLedger(url)
    state = ledger.read("box", 2.0)
    assert (state.version, state.accounts, state.reservations) == (8, (), ())
    assert [request.id for request in state.requests] == ["r-4"]
    active, limited = state.leases
    assert (active.state, conditions_text(active.conditions), active.expires_at) == (
        LeaseState.ACTIVE,
        "50 % of a GPU: äöü",
        60.3,
    )
    assert (active.active_at, active.notice, limited.ends_at) == (None, None, 30.0)
    assert [event.sequence for event in ledger.events()] == list(range(1, 10))

    ledger.touch([active.id], 3.0)
    (account,) = ledger.read(
        "box", 30.0
    ).accounts  # what has ended before is not charged
    assert (account.user, account.at, account.decayed) == (
        "ann",
        30.0,
        pytest.approx(14.5, rel=1e-3),
    )
    ledger.submit(wish("r-5", 31.0))
    assert ledger.events()[-1].sequence == 11
    assert ledger.lease(active.id, 31.0).active_at == 3.0
    ledger.close()


def test_a_ledger_that_version_3_has_written_is_migrated_with_its_rows(
    url: str, wish: Wish
) -> None:
    restore(url, 3)
    ledger = SQLLedger(url)
    state = ledger.read("box", 3.0)
    assert (state.version, [request.id for request in state.requests]) == (10, ["r-4"])
    active, limited = state.leases
    assert (active.state, conditions_text(active.conditions), active.active_at) == (
        LeaseState.ACTIVE,
        "50 % of a GPU: äöü",
        2.0,
    )
    assert (active.residence, limited.residence) == (None, None)
    assert limited.notice == Notice(
        kind=NoticeKind.PREEMPT, at=2.0, ends_at=62.0, request_id="r-4"
    )
    assert [(account.user, account.at) for account in state.accounts] == [("ann", 1.5)]
    assert [(kept.name, kept.count, kept.is_weekly) for kept in state.reservations] == [
        ("course's", 2, True)
    ]

    home = DeviceState(active_at=3.0, pinned="äöü")
    request = ledger.submit(wish("r-5", 3.0))
    grant = Grant(
        request=request, slices=active.slices, expires_at=63.0, residence=home
    )
    granted = ledger.apply(
        Plan(version=ledger.read("box", 3.0).version, actions=(grant,)), 3.0
    )[-1]
    assert ledger.lease(granted.lease_id, 3.0).residence == home
    assert [event.sequence for event in ledger.events()] == list(range(1, 13))
    ledger.close()


def test_the_notes_and_rejections_of_version_5_become_conditions_and_codes(
    url: str,
) -> None:
    restore(url, 5)
    ledger = SQLLedger(url)
    leases = {lease.request_id: lease for lease in ledger.leases(2.5, live=False)}
    notes = {
        request_id: [
            (each.kind, each.severity, each.message) for each in lease.conditions
        ]
        for request_id, lease in leases.items()
    }
    error, warning, info = Severity.ERROR, Severity.WARNING, Severity.INFO
    more = "the process sees devices GPU-1, GPU-2 instead of GPU-1"
    held = "python 7 of tour.ipynb holds"
    unmeasured = "its memory cannot be measured now, so nothing watches its bound"
    fault = "python 7 of tour.ipynb caused it; restart the kernel"
    assert notes == {
        "r-1": [(ConditionKind.NOTE, info, "lent until the reservation 'äöü' begins")],
        "r-2": [(ConditionKind.DEVICE_FAULT, error, fault)],
        "r-3": [(ConditionKind.MEMORY_EXCEEDED, error, f"{held} 42.0 GiB of 40.0 GiB")],
        "r-4": [(ConditionKind.NOT_ENFORCED, error, more)],
        "r-5": [
            (ConditionKind.MEMORY_PRESSURE, warning, f"{held} 38.0 GiB of 40.0 GiB")
        ],
        "r-6": [(ConditionKind.MEMORY_UNKNOWN, info, unmeasured)],
        "r-7": [(ConditionKind.NOT_VERIFIED, info, "CUDA does not answer")],
        "r-8": [(ConditionKind.NOT_VERIFIED, info, "there is nothing to verify")],
        "r-9": [(ConditionKind.ENFORCEMENT_REDUCED, info, "there is no group")],
        "r-10": [],
        "r-11": [
            (
                ConditionKind.FAILED,
                error,
                "the daemon isn't there: it did not start",
            )
        ],
    }
    assert leases["r-1"].conditions[0].since == leases["r-1"].granted_at
    codes = {
        request_id: (
            ledger.request(request_id).state.value,
            ledger.request(request_id).code,
        )
        for request_id in ("r-1", "r-12", "r-13", "r-14", "r-15")
    }
    assert codes == {
        "r-1": ("granted", ""),
        "r-12": ("rejected", "AcquireTimeout"),
        "r-13": ("rejected", "Refused"),
        "r-14": ("queued", ""),
        "r-15": ("cancelled", ""),
    }
    ledger.close()


def test_a_ledger_that_version_4_has_written_is_migrated_and_keeps_charges(
    url: str, wish: Wish
) -> None:
    restore(url, 4)
    ledger = SQLLedger(url)
    state = ledger.read("box", 2.5)
    assert (state.version, [request.id for request in state.requests]) == (9, ["r-4"])
    active, limited = state.leases
    assert (active.active_at, conditions_text(active.conditions), limited.ends_at) == (
        1.5,
        "50 % of a GPU: äöü",
        30.0,
    )
    assert ([kept.id for kept in state.reservations], state.accounts[0].user) == (
        ["v-1"],
        "ann",
    )
    assert (ledger.meters("box"), ledger.charges(0, 9), ledger.cells("box", 0.0)) == (
        (),
        (),
        (),
    )

    meter = MeterState(host="box", device_id="GPU-1", at=3.0, millijoules=7)
    charge = UsageRecord(
        host="box",
        device_id="GPU-1",
        lease_id=active.id,
        day=0,
        user="ann",
        millijoules=7,
    )
    ledger.settle(UsageSummary(after=(meter,), charges=(charge,)))
    ledger.close()
    migrated = SQLLedger(url)
    assert (migrated.meters("box"), migrated.charges(0, 0, user="ann")) == (
        (meter,),
        (charge,),
    )
    migrated.close()
    made, current = columns(url), schema.metadata.tables
    assert {name for name in made["aistack_charges"] if name[0].startswith("ix_")} == {
        (str(index.name), str([column.name for column in index.columns]))
        for index in current["aistack_charges"].indexes
    }


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(
    url: str, wish: Wish
) -> None:
    ledger = SQLLedger(url)
    ledger.submit(wish("r-1"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE aistack_meta SET schema_version = 99")
    for stranger in (SQLLedger(url), ledger):  # opened now, and open since before
        with pytest.raises(
            SchemaMismatch, match=r"schema is 99.*upgrade jupyter_aistack"
        ) as refused:
            stranger.submit(wish("r-2"))
        assert refused.value.facts["field"] == "ledger_url"
        stranger.close()
    with engine.connect() as connection:
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM aistack_requests").scalar()
            == 1
        )
    engine.dispose()


def in_processes(count: int, work: Callable[[int], object]) -> list[int]:
    """Exit statuses of `count` processes that do `work(number)` at the same time."""
    together = fork.Barrier(count)

    def run(number: int) -> None:
        together.wait(30)
        work(number)

    processes = [fork.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [
        process.exitcode if process.exitcode is not None else -999
        for process in processes
    ]


@forks
@pytest.mark.parametrize(
    "age", ["new", "version 1", "version 2", "version 3", "version 4"]
)
def test_processes_that_open_a_ledger_together_create_or_migrate_it_once(
    url: str, wish: Wish, age: str
) -> None:
    if age == "version 1":
        SQLLedger(url).submit(wish("r-old"))
        make_first_version(url)
    elif age != "new":
        restore(url, int(age[-1]))
    statuses = in_processes(
        6, lambda number: SQLLedger(url).submit(wish(f"r-new-{number}"))
    )
    assert statuses == [0] * 6
    requests = SQLLedger(url).read("box", 0.0).requests
    assert {f"r-new-{number}" for number in range(6)} <= {
        request.id for request in requests
    }


# -- processes -------------------------------------------------------------------------


@forks
def test_processes_with_the_same_version_make_one_grant(url: str, wish: Wish) -> None:
    ledger = SQLLedger(url)
    ledger.submit(wish("r-1"))
    todo = Plan(
        version=ledger.read("box", 0.0).version,
        actions=(Grant(request=wish("r-1"), slices=(), expires_at=60.0),),
    )
    ledger.close()

    def apply(number: int) -> None:
        try:
            SQLLedger(url).apply(todo, 1.0)
        except LedgerConflict:
            os._exit(7)

    assert sorted(in_processes(4, apply)) == [0, 7, 7, 7]
    assert len(ledger.leases(1.0)) == 1
    ledger.close()


def test_a_reading_transaction_sees_one_moment(
    url: str, wish: Wish, grant: Granter
) -> None:
    ledger, other = SQLLedger(url), SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    with ledger._reading() as rows:
        assert rows.version  # it sees the moment of its first reading
        other.submit(wish("r-2"))
        other.step(lease.id, lease.token, LeaseTransition.FAIL, 1.0)
        assert rows.queued("box") == []
        assert rows.lease(lease.id) == lease
    assert [request.id for request in ledger.read("box", 1.0).requests] == ["r-2"]
    ledger.close()
    other.close()


@forks
def test_a_forked_child_does_not_use_its_parents_connections(
    url: str, wish: Wish
) -> None:
    ledger = SQLLedger(url)
    ledger.submit(wish("r-parent"))
    assert in_processes(2, lambda number: ledger.submit(wish(f"r-{number}"))) == [0, 0]
    assert {request.id for request in ledger.read("box", 0.0).requests} == {
        "r-parent",
        "r-0",
        "r-1",
    }
    ledger.close()


@forks
def test_what_was_returned_survives_a_sudden_end(
    url: str, wish: Wish, grant: Granter
) -> None:
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:  # grants leases and tells their ids until it is killed
        ledger = SQLLedger(url)
        for number in range(100_000):
            os.write(sender, grant(ledger, wish(f"r-{number}")).id.encode() + b"\n")
    os.close(sender)
    with open(receiver) as told:
        ids = [told.readline().strip() for _ in range(20)]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ids += [line.strip() for line in told if line.endswith("\n")]
    survivor = SQLLedger(url)
    leases = {lease.id: lease for lease in survivor.leases(1.0, limit=100_000)}
    assert set(ids) <= set(leases)
    granted = [
        event.lease_id
        for event in survivor.events(limit=1_000_000)
        if event.kind is EventKind.LEASE_GRANTED
    ]
    assert sorted(granted) == sorted(
        leases
    )  # no lease without its event, none the other way round
    survivor.close()


def test_many_threads_share_one_ledger(url: str, wish: Wish, grant: Granter) -> None:
    ledger = SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    failures: list[Exception] = []

    def renew(number: int) -> None:
        try:
            for turn in range(10):
                ledger.renew(lease.id, lease.token, 1.0, 60.0 + number + turn)
                ledger.submit(wish(f"r-{number}-{turn}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=renew, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(ledger.read("box", 1.0).requests) == 80
    sequences = [event.sequence for event in ledger.events()]
    assert sequences == sorted(set(sequences))
    ledger.close()


def test_a_failure_in_the_middle_of_a_write_undoes_all_of_it(
    url: str, wish: Wish, grant: Granter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    before = ledger.events()
    with monkeypatch.context() as patch:
        patch.setattr(
            "jupyter_aistack.ledger.sql.codec.event_to_row",
            lambda event: {**vars(event), "kind": None},
        )
        with pytest.raises(LedgerUnavailable):
            ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 1.0)
    assert ledger.lease(lease.id, 1.0) == lease
    assert ledger.events() == before
    ledger.close()


@forks
def test_a_fork_inherits_nothing_of_an_open_ledger(tmp_path: Path, wish: Wish) -> None:
    def count_open_files(number: int = 0) -> int:
        folder = Path("/proc/self/fd")
        links = [folder / name for name in os.listdir(folder)]
        return sum(
            os.readlink(link).startswith(str(tmp_path))
            for link in links
            if link.is_symlink()
        )

    ledger = at(tmp_path / "ledger.sqlite")
    ledger.submit(wish("r-1"))
    assert count_open_files() > 0
    assert in_processes(1, lambda number: os._exit(count_open_files())) == [0]
    assert ledger.request("r-1").id == "r-1"


@pytest.mark.postgres
def test_a_connection_the_server_has_dropped_is_replaced(
    postgres_url: str, wish: Wish
) -> None:
    ledger = SQLLedger(postgres_url)
    ledger.submit(wish("r-1"))
    admin = sa.create_engine(postgres_url)
    with admin.begin() as connection:
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 60000)  -- waits until it has ended\n"
            f"FROM pg_stat_activity WHERE {others}"
        )
    admin.dispose()
    assert ledger.request("r-1").id == "r-1"
    ledger.close()


def test_every_field_of_a_lease_survives_the_file(
    tmp_path: Path, wish: Wish, grant: Granter
) -> None:
    ledger = at(tmp_path / "ledger.sqlite")
    lease = grant(ledger, wish("r-1", 0.1), 0.1 + 0.2, ends_at=1e9 / 3)
    notice = Notice(kind=NoticeKind.PREEMPT, at=0.1, ends_at=1e9 / 7, request_id="r-2")
    ledger.bind(lease.id, lease.token, 1.0, active_at=1.0 / 3, notice=notice)
    seen = new_condition(ConditionKind.NOT_ENFORCED, "n", 1.0 / 7)
    active = ledger.step(
        lease.id,
        lease.token,
        LeaseTransition.ACTIVATE,
        1.0,
        verified=False,
        conditions=ConditionUpdate(put=(seen,)),
    )
    assert (active.active_at, active.notice) == (1.0 / 3, notice)
    ended = ledger.step(lease.id, lease.token, LeaseTransition.REAP, 1.0 / 3 + 1)
    ledger.close()
    again = at(tmp_path / "ledger.sqlite").lease(lease.id, 2.0)
    assert (
        again
        == ended
        == replace(
            active, state=ended.state, outcome=Outcome.ABANDONED, ended_at=1.0 / 3 + 1
        )
    )


def test_a_servers_driver_is_imported_before_any_thread_can_fork() -> None:
    code = (
        "import sys; from jupyter_aistack.ledger.sql.ledger import SQLLedger;"
        "SQLLedger('postgresql+psycopg://nobody@127.0.0.1:1/none');"
        "print('psycopg' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout == "True\n"
