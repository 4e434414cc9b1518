"""What is old leaves the ledger for files: nothing is lost, nothing is there twice,
whoever crashes when.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker import archive_folder, archiver
from jupyter_aistack.broker.archive_folder import ArchiveFolder
from jupyter_aistack.broker.archiver import Archiver
from jupyter_aistack.broker.audit import Audit
from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary
from jupyter_aistack.core.audit.chain import Flaw, FlawKind
from jupyter_aistack.core.model.archive import RecordKind, SegmentState
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import LeaseTransition
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.exceptions import LeaseNotFound, LedgerUnavailable
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system.table_files import write_table
from jupyter_aistack.testing import ManualClock
from tests.fakes.leases import granted, wished

START = 1_000 * DAY_SECONDS
LATER = START + 100 * DAY_SECONDS
NINETY = Retention(seconds=90 * DAY_SECONDS)


class Crash(BaseException):
    """The process ends here."""


class Box:
    """A ledger with a history, and what archives it."""

    def __init__(self, tmp_path: Path, ledger: Ledger | None = None) -> None:
        self.clock = ManualClock(LATER)
        self.ledger = ledger or SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
        self.folder = ArchiveFolder(tmp_path / "archive", tmp_path)

    def archiver(self, retention: Retention = NINETY, host: str = "box") -> Archiver:
        return Archiver(
            self.ledger, self.folder, retention, host=host, clock=self.clock
        )

    def live_through(self, count: int, at: float = START) -> None:
        """Leases that are granted and released, each with its events."""
        for number in range(count):
            name = f"r-{at:.0f}-{number}"
            lease = granted(self.ledger, wished(name, at), at)
            for step in (LeaseTransition.RELEASE, LeaseTransition.FINISH):
                self.ledger.step(lease.id, lease.token, step, at + 1.0)

    def archived(self, kind: RecordKind) -> list[Any]:
        """The keys of what is in the files of a kind."""
        name = {"leases": "token", "requests": "id", "events": "sequence"}[kind.value]
        segments = self.ledger.archive_segments()
        files = [self.folder.read(p) for p in segments if p.kind is kind and p.file]
        return [row[name] for rows in files if rows for row in rows]

    def kept(self, kind: RecordKind) -> list[Any]:
        """The keys of what is in the ledger."""
        if kind is RecordKind.EVENTS:
            return [row["sequence"] for row in self.ledger.event_rows(limit=10**6)]
        leases = self.ledger.leases(LATER, live=False, limit=10**6)
        return [lease.token for lease in leases]

    def verdict(self) -> tuple[int, object]:
        audit = Audit(self.ledger, self.folder, "box")
        page = audit.step(None)
        count = page.verdict.count
        while page.position is not None:
            page = audit.step(page.position)
            count += page.verdict.count
        return count, page.verdict.flaw


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_what_is_old_is_in_files_and_no_longer_in_the_ledger(box: Box) -> None:
    box.live_through(3)
    box.live_through(2, at=LATER - DAY_SECONDS)
    done = box.archiver().run(None)
    assert done.counts[RecordKind.LEASES] == 3
    assert done.counts[RecordKind.REQUESTS] == 3
    assert sorted(box.archived(RecordKind.LEASES)) == [1, 2, 3]
    assert sorted(box.kept(RecordKind.LEASES)) == [4, 5]
    assert box.archived(RecordKind.EVENTS) == list(range(1, 10))
    assert min(box.kept(RecordKind.EVENTS)) == 10
    assert all(Path(file).is_file() for file in done.files)


def test_the_chain_holds_over_files_and_ledger(box: Box) -> None:
    box.live_through(3)
    box.archiver().run(None)
    box.live_through(2, at=LATER)
    count, flaw = box.verdict()
    assert flaw is None
    assert count == box.ledger.chain_ends().end.sequence


def test_live_leases_and_waiting_requests_stay_however_old(box: Box) -> None:
    held = granted(box.ledger, wished("r-1", START), START)
    box.ledger.submit(wished("r-2", START))
    box.archiver().run(None)
    assert box.ledger.lease(held.id, LATER) == held
    assert box.ledger.request("r-1").lease_id == held.id
    assert [each.id for each in box.ledger.read("box", LATER).requests] == ["r-2"]


def test_readers_of_events_go_on_where_old_events_have_left(box: Box) -> None:
    box.live_through(2)
    box.archiver().run(None)
    box.live_through(1, at=LATER)
    last = box.ledger.events(limit=10**6)[-1].sequence
    assert [e.sequence for e in box.ledger.events(after=last - 2)] == [last - 1, last]
    assert box.ledger.events(after=1, limit=1)[0].sequence == 7, "the first there is"


def test_accounts_and_books_stay(box: Box) -> None:
    box.live_through(2)
    charge = UsageRecord(
        host="box",
        device_id="GPU-1",
        lease_id="l-1",
        day=int(START // DAY_SECONDS),
        user="ann",
        seconds=10.0,
        share_seconds=5.0,
    )
    cell = replace(charge, cell="1:abc", seconds=3.0, share_seconds=2.0)
    box.ledger.settle(UsageSummary(charges=(charge, cell)))
    accounts = box.ledger.read("box", LATER).accounts
    box.archiver().run(None)
    assert box.ledger.read("box", LATER).accounts == accounts
    (kept,) = box.ledger.charges(0, 10**6)
    assert (kept.cell, kept.seconds, kept.share_seconds) == ("", 13.0, 7.0)
    (segment,) = [
        segment
        for segment in box.ledger.archive_segments()
        if segment.kind is RecordKind.CELLS
    ]
    rows = box.folder.read(segment)
    assert rows is not None
    assert [(row["cell"], row["seconds"]) for row in rows] == [("1:abc", 3.0)]


def test_a_turn_does_a_little(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver, "PRUNED", 2)
    box.live_through(5)
    turns = box.archiver()
    left = [len(box.kept(RecordKind.LEASES))]
    while turns.turn():
        left.append(len(box.kept(RecordKind.LEASES)))
    assert max(a - b for a, b in itertools.pairwise(left)) == 2
    assert left[-1] == 0
    assert len(left) > 8


def test_it_looks_again_after_a_while(box: Box) -> None:
    turns = box.archiver()
    assert not turns.turn()
    box.live_through(1)
    assert not turns.turn(), "it has looked just now"
    box.clock.advance(archiver.LOOK_SECONDS)
    assert turns.turn()


def test_without_a_folder_or_a_time_all_stays(box: Box) -> None:
    box.live_through(1)
    nowhere = Archiver(box.ledger, None, NINETY, host="box", clock=box.clock)
    assert not nowhere.turn()
    assert nowhere.run(LATER).counts == {}
    assert not box.archiver(Retention()).turn()
    assert box.kept(RecordKind.LEASES) == [1]


def test_how_much_is_old_is_counted_and_nothing_moved(box: Box) -> None:
    box.live_through(2)
    counts = box.archiver().count(None)
    assert counts[RecordKind.LEASES] == 2
    assert counts[RecordKind.EVENTS] == 6
    assert box.ledger.archive_segments() == ()


CRASHES: list[tuple[object, str]] = [
    (ArchiveFolder, "write"),
    (archive_folder, "write_table"),
    (SQLLedger, "keep_file"),
    (SQLLedger, "prune_segment"),
    (MemoryLedger, "keep_file"),
    (MemoryLedger, "prune_segment"),
]


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("where", "name"), CRASHES)
def test_a_crash_neither_loses_nor_doubles(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
    is_before: bool,
) -> None:
    box = Box(tmp_path, MemoryLedger() if where is MemoryLedger else None)
    monkeypatch.setattr(archiver, "SEGMENT_RECORDS", 2)
    monkeypatch.setattr(archiver, "PRUNED", 1)
    box.live_through(3)
    events = len(box.kept(RecordKind.EVENTS))
    whole: Callable[..., Any] = getattr(where, name)
    calls = itertools.count()

    def crashing(*args: Any, **options: Any) -> Any:
        is_time = next(calls) % 2 == 0
        if is_time and is_before:
            raise Crash
        answer = whole(*args, **options)
        if is_time:
            raise Crash
        return answer

    monkeypatch.setattr(where, name, crashing)
    for _ in range(200):
        try:
            box.archiver().run(None)
        except Crash:
            continue
        break
    else:
        pytest.fail("it never comes to an end")
    times = Counter(box.archived(RecordKind.LEASES))
    assert times == Counter([1, 2, 3])
    assert box.kept(RecordKind.LEASES) == []
    assert box.archived(RecordKind.EVENTS) == list(range(1, events + 1))
    assert box.verdict()[1] is None
    states = {segment.state for segment in box.ledger.archive_segments()}
    assert states == {SegmentState.DONE}


def test_two_processes_that_archive_do_what_one_does(box: Box) -> None:
    box.live_through(3)
    both = [box.archiver(), box.archiver()]
    while any([each.turn() for each in both]):  # noqa: C419 - both take their turn
        pass
    assert sorted(box.archived(RecordKind.LEASES)) == [1, 2, 3]
    assert box.verdict()[1] is None


def test_what_another_host_has_begun_is_its_own_until_it_is_taken_over(
    box: Box,
) -> None:
    box.live_through(1)
    begun = box.ledger.begin_segment(
        RecordKind.LEASES, LATER, LATER, host="gone", limit=9
    )
    assert begun is not None
    turns = box.archiver()
    while turns.turn():
        pass
    assert box.kept(RecordKind.LEASES) == [1]
    box.archiver().run(None)
    assert box.kept(RecordKind.LEASES) == []
    assert box.archived(RecordKind.LEASES) == [1]


def test_a_folder_that_cannot_be_written_leaves_all_in_the_ledger(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    box.live_through(1)
    (tmp_path / "archive").write_text("a file")
    with pytest.raises(LedgerUnavailable, match=r"archive_folder: .*cannot be written"):
        box.archiver().turn()
    assert box.kept(RecordKind.LEASES) == [1]
    (tmp_path / "archive").unlink()
    box.archiver().run(None)
    assert box.archived(RecordKind.LEASES) == [1]


def test_a_clock_that_was_wrong_once_keeps_nothing_in_the_ledger(box: Box) -> None:
    box.ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=START))
    far = LATER + 9_999 * DAY_SECONDS
    box.ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=far))
    box.ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=START))
    box.ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=LATER))
    box.ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=START))
    box.archiver().run(None)
    assert box.archived(RecordKind.EVENTS) == [1, 2, 3]
    assert box.kept(RecordKind.EVENTS)[:2] == [4, 5]


def test_names_become_pseudonyms_when_it_is_time(box: Box) -> None:
    box.live_through(2)
    with_names = replace(NINETY, pseudonym_seconds=200 * DAY_SECONDS)
    box.archiver(with_names).run(None)
    assert names_in(box) == {"ann"}
    box.clock.advance(120 * DAY_SECONDS)
    box.archiver(with_names).run(None)
    names = names_in(box)
    assert len(names) == 1
    assert names != {"ann"}
    assert not [f for f in box.folder.path.iterdir() if b"ann" in f.read_bytes()]
    assert box.verdict()[1] is None


def names_in(box: Box) -> set[str]:
    segments = box.ledger.archive_segments()
    leases = [box.folder.read(p) for p in segments if p.kind is RecordKind.LEASES]
    return {json.loads(row["holder"])["user"] for rows in leases for row in rows or ()}


def test_names_may_be_replaced_at_once(box: Box) -> None:
    box.live_through(1)
    box.archiver(replace(NINETY, pseudonym_seconds=0.0)).run(None)
    assert all(name.startswith("p-") for name in names_in(box))
    key = box.folder.path.parent / archive_folder.KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["write_table", "drop_names"])
def test_a_crash_while_names_are_replaced_loses_no_file(
    box: Box, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    box.live_through(1)
    box.archiver().run(None)
    where = archive_folder if name == "write_table" else ArchiveFolder

    def crash(*_args: object, **_options: object) -> None:
        raise Crash

    nobody = replace(NINETY, pseudonym_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, crash)
        with pytest.raises(Crash):
            box.archiver(nobody).run(None)
    assert box.verdict()[1] is None
    box.archiver(nobody).run(None)
    assert "ann" not in names_in(box)
    assert box.verdict()[1] is None
    assert not [f for f in box.folder.path.iterdir() if b"ann" in f.read_bytes()]


def test_a_lease_that_has_left_is_not_found(box: Box) -> None:
    box.live_through(1)
    (lease,) = box.ledger.leases(LATER, live=False)
    box.archiver().run(None)
    with pytest.raises(LeaseNotFound):
        box.ledger.lease(lease.id, LATER)


def test_a_file_that_was_changed_is_not_made_whole_by_taking_names_out(
    box: Box,
) -> None:
    box.live_through(1)
    box.archiver().run(None)
    (segment,) = (
        each for each in box.ledger.archive_segments() if each.kind is RecordKind.LEASES
    )
    rows = box.folder.read(segment)
    assert rows
    write_table(Path(segment.file), [{**row, "queue": "forged"} for row in rows])
    box.archiver(replace(NINETY, pseudonym_seconds=0.0)).run(None)
    flaw = box.verdict()[1]
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.FILE
