"""The chain is verified over archive files and the ledger, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_aistack.broker import audit as audit_module
from jupyter_aistack.broker.archive_folder import ArchiveFolder
from jupyter_aistack.broker.archiver import Archiver
from jupyter_aistack.broker.audit import Audit
from jupyter_aistack.core.audit.chain import FlawKind, Verdict
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system.table_files import read_table, write_table
from jupyter_aistack.testing import ManualClock

LATER = 1_000 * DAY_SECONDS


class Box:
    """A ledger with archived events 1 to 4 and events 5 to 8 of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/ledger.sqlite"
        self.ledger = SQLLedger(self.url)
        self.folder = ArchiveFolder(tmp_path / "archive", tmp_path)
        self.record(4, 1.0)
        archiver = Archiver(
            self.ledger,
            self.folder,
            Retention(seconds=DAY_SECONDS),
            host="box",
            clock=ManualClock(LATER),
        )
        archiver.run(None)
        self.record(3, LATER)
        self.file = Path(self.ledger.archive_segments()[0].file)

    def record(self, count: int, at: float) -> None:
        for _ in range(count):
            event = Event(kind=EventKind.SETTINGS_CHANGED, at=at, owner="ann")
            self.ledger.record(event)

    def verdict(self, host: str = "box") -> tuple[Verdict, int, list[str]]:
        audit = Audit(self.ledger, self.folder, host)
        page = audit.step(None)
        count = page.verdict.count
        elsewhere = [page.elsewhere]
        while page.position is not None:
            page = audit.step(page.position)
            count += page.verdict.count
            elsewhere.append(page.elsewhere)
        return page.verdict, count, [file for file in elsewhere if file]

    def execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_what_was_written_holds(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "PAGE", 2)
    verdict, count, elsewhere = box.verdict()
    assert verdict.flaw is None
    assert (count, verdict.link.sequence, elsewhere) == (8, 8, [])


SPOILT: list[tuple[Callable[[Box], None], FlawKind, int]] = [
    (
        lambda box: box.execute("DELETE FROM aistack_events WHERE sequence = 6"),
        FlawKind.MISSING,
        6,
    ),
    (
        lambda box: box.execute("DELETE FROM aistack_events WHERE sequence = 8"),
        FlawKind.MISSING,
        8,
    ),
    (
        lambda box: box.execute("DELETE FROM aistack_events"),
        FlawKind.MISSING,
        5,
    ),
    (
        lambda box: box.execute(
            "UPDATE aistack_events SET owner = 'eve' WHERE sequence = 7"
        ),
        FlawKind.EDITED,
        7,
    ),
    (
        lambda box: box.execute("UPDATE aistack_meta SET event_digest = 'x'"),
        FlawKind.EDITED,
        8,
    ),
    (lambda box: box.file.unlink(), FlawKind.FILE, 1),
    (lambda box: rewrite(box, slice(0, 3)), FlawKind.MISSING, 4),
    (lambda box: rewrite(box, slice(1, 4)), FlawKind.MISSING, 1),
]


def rewrite(box: Box, kept: slice) -> None:
    write_table(box.file, read_table(box.file)[kept])


@pytest.mark.parametrize(("spoil", "kind", "sequence"), SPOILT)
def test_the_first_that_does_not_hold_is_named(
    box: Box, spoil: Callable[[Box], None], kind: FlawKind, sequence: int
) -> None:
    spoil(box)
    flaw = box.verdict()[0].flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (kind, sequence)


def test_an_event_edited_in_a_file_is_named(box: Box) -> None:
    rows = read_table(box.file)
    rows[2] = {**rows[2], "owner": "eve"}
    write_table(box.file, rows)
    flaw = box.verdict()[0].flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.EDITED, 3)


def test_a_file_on_another_host_is_told_and_the_chain_goes_on_behind_it(
    box: Box,
) -> None:
    verdict, count, elsewhere = box.verdict(host="another")
    assert verdict.flaw is None
    assert count == 4
    assert elsewhere == [f"{box.file} on box"]


def test_events_of_a_version_that_kept_no_digests_are_passed_over(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    box.execute("UPDATE aistack_meta SET chained_after = 4")
    verdict, count, _ = box.verdict()
    assert Audit(box.ledger, box.folder, "box").chained_after() == 4
    assert verdict.flaw is not None, "the digests of 1 to 4 are not believed away"
    assert count == 0
    assert replace(verdict, flaw=None).link.sequence == 4
