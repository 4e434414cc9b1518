"""What a ledger tells of its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from jupyter_aistack.core.audit.chain import Link
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.history import ChainEnds

Wish = Callable[..., Request]


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
