"""What a ledger tells of its events."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import UsageRecord, UsageSummary
from jupyter_aistack.core.audit.chain import Link, follow
from jupyter_aistack.core.model.archive import RecordKind, SegmentState
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerConflict
from jupyter_aistack.ledger.actor import Actor, acting
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.history import ChainEnds

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


def test_a_new_ledger_has_an_empty_chain(ledger: Ledger) -> None:
    assert ledger.chain_ends() == ChainEnds(end=Link())
    assert ledger.event_rows() == ()


def test_rows_are_events_as_they_are_kept(ledger: Ledger, wish: Wish) -> None:
    ledger.submit(wish("r-1"))
    ledger.submit(wish("r-2"))
    (event,) = ledger.events(after=1)
    (row,) = ledger.event_rows(after=1)
    assert row == {**asdict(event), "kind": event.kind.value}
    assert ledger.chain_ends().end == Link(sequence=2, digest=event.digest)


def test_what_happens_outside_leases_is_written_down(ledger: Ledger) -> None:
    changed = Event(
        kind=EventKind.SETTINGS_CHANGED,
        at=5.0,
        detail="read again",
        before='{"queues":1}',
        after='{"queues":2}',
    )
    ledger.record(changed)
    (event,) = ledger.events()
    assert (event.kind, event.at, event.detail) == (changed.kind, 5.0, "read again")
    assert (event.before, event.after) == (changed.before, changed.after)


def test_events_of_a_user_are_told_from_a_time_on(ledger: Ledger, wish: Wish) -> None:
    ledger.submit(wish("r-1", at=1.0))
    with acting(Actor(user="bob", uid=1001)):
        ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=2.0))
    ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=3.0, owner="eve"))

    def told(**question: Any) -> list[object]:
        return [row["sequence"] for row in ledger.told_events(**question)]

    assert told() == [1, 2, 3]
    assert told(user="ann") == [1]
    assert told(user="bob") == [2]
    assert told(user="eve") == [3]
    assert told(since=2.0) == [2, 3]
    assert told(after=1, limit=1) == [2]
    assert told(user="nobody") == []


def ended(ledger: Ledger, lease: Lease, at: float) -> None:
    for step in (LeaseTransition.RELEASE, LeaseTransition.FINISH):
        ledger.step(lease.id, lease.token, step, at)


def test_what_is_old_leaves_in_a_segment(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    for name in ("r-1", "r-2", "r-3"):
        ended(ledger, grant(ledger, wish(name)), 5.0)
    live = grant(ledger, wish("r-4"))
    leases = RecordKind.LEASES
    assert ledger.count_old(leases, 10.0, 20.0, 99) == 3
    assert ledger.begin_segment(leases, 5.0, 20.0, host="box", limit=9) is None
    segment = ledger.begin_segment(leases, 10.0, 20.0, host="box", limit=9)
    assert segment is not None
    assert (segment.count, segment.state) == (3, SegmentState.WRITING)
    assert ledger.begin_segment(leases, 99.0, 20.0, host="box", limit=9) == segment
    assert ledger.begin_segment(leases, 99.0, 20.0, host="b", limit=9) is None
    assert len(ledger.segment_rows(segment)) == 3
    assert ledger.prune_segment(segment.number, 9, 20.0) == segment, "not written yet"

    file = {"file": "/srv/a.csv", "file_digest": "abc", "is_pseudonymous": False}
    written = ledger.keep_file(segment, **file)
    assert written.state is SegmentState.PRUNING
    assert ledger.prune_segment(segment.number, 2, 20.0).pruned == 2
    done = ledger.prune_segment(segment.number, 2, 20.0)
    assert (done.state, done.pruned, done.keys) == (SegmentState.DONE, 3, "[]")
    assert ledger.leases(20.0, live=False) == (live,)
    assert ledger.archive_segments() == (done,)
    event = ledger.events()[-1]
    assert event.kind is EventKind.HISTORY_ARCHIVED
    assert json.loads(event.after)["sha256"] == "abc"


def test_a_request_leaves_behind_its_lease(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    grant(ledger, wish("r-1"))
    ledger.submit(wish("r-2"))
    ledger.submit(wish("r-3"))
    ledger.cancel("r-3", 1.0)
    requests = RecordKind.REQUESTS
    segment = ledger.begin_segment(requests, 10.0, 20.0, host="box", limit=9)
    assert segment is not None
    assert json.loads(segment.keys) == ["r-3"]


def test_a_segment_of_events_ends_with_the_digest_that_the_next_begins_with(
    ledger: Ledger,
) -> None:
    for at in (1.0, 2.0, 3.0, 30.0):
        ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=at))
    segment = ledger.begin_segment(RecordKind.EVENTS, 10.0, 40.0, host="box", limit=2)
    assert segment is not None
    assert (segment.first, segment.last) == (1, 2)
    link = follow(ledger.segment_rows(segment), Link()).link
    assert link == Link(sequence=2, digest=segment.digest)
    assert follow(ledger.event_rows(after=2), link).flaw is None


def test_a_segment_that_another_host_took_over_is_its_own(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    ended(ledger, grant(ledger, wish("r-1")), 5.0)
    leases = RecordKind.LEASES
    mine = ledger.begin_segment(leases, 10.0, 20.0, host="box", limit=9)
    taken = ledger.begin_segment(leases, 10.0, 20.0, host="b", limit=9, adopts=True)
    assert mine is not None
    assert taken is not None
    assert (taken.number, taken.host) == (mine.number, "b")
    with pytest.raises(LedgerConflict, match="b writes leases now"):
        ledger.keep_file(mine, file="a", file_digest="", is_pseudonymous=False)


def test_what_cells_cost_leaves_for_a_file_and_stays_in_the_books(
    ledger: Ledger,
) -> None:
    charge = UsageRecord(
        host="box", device_id="GPU-1", lease_id="l-1", day=3, user="ann", seconds=2.0
    )
    cells = (replace(charge, cell="1:a"), replace(charge, cell="2:b"))
    ledger.settle(UsageSummary(charges=(charge, *cells)))
    kind = RecordKind.CELLS
    segment = ledger.begin_segment(kind, 9 * 86400.0, 0.0, host="box", limit=9)
    assert segment is not None
    rows = ledger.segment_rows(segment)
    assert sorted(str(row["cell"]) for row in rows) == ["1:a", "2:b"]
    ledger.keep_file(segment, file="a", file_digest="", is_pseudonymous=False)
    ledger.prune_segment(segment.number, 9, 20.0)
    (kept,) = ledger.charges(0, 9)
    assert (kept.cell, kept.seconds) == ("", 6.0)
