"""Every event of a ledger is chained to the one before, and says who did it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from jupyter_aistack.core.audit.chain import FlawKind, Link, Verdict, follow
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.actor import Actor, acting
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.sql.ledger import SQLLedger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


def verdict(ledger: Ledger) -> Verdict:
    return follow(ledger.event_rows(), Link())


def test_what_a_ledger_writes_is_a_chain(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 1.0)
    ledger.extend(lease.id, lease.token, 2.0, 90.0)
    ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=3.0, after="{}"))
    ledger.submit(wish("r-2", at=3.5))
    ledger.cancel("r-2", 4.0, "lone \ud800 surrogate \0")
    kept = verdict(ledger)
    assert kept.flaw is None
    assert kept.count == len(ledger.events()) == 7
    assert kept.link == ledger.chain_ends().end


def test_an_event_tells_who_what_before_and_after(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    with acting(Actor(user="bob", uid=1001)):
        ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 1.0)
    event = ledger.events()[-1]
    assert (event.user, event.uid, event.owner) == ("bob", 1001, "ann")
    assert json.loads(event.before) == {"state": "granted"}
    assert json.loads(event.after) == {"state": "active"}


def test_a_lease_that_ends_in_somebody_elses_transaction_is_not_their_doing(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    grant(ledger, wish("r-1"), ends_at=5.0)
    with acting(Actor(user="bob", uid=1001)):
        ledger.submit(wish("r-2", at=9.0))
    expired, queued = ledger.events()[-2:]
    assert (expired.kind, expired.user) == (EventKind.LEASE_EXPIRED, "")
    assert (queued.kind, queued.user) == (EventKind.REQUEST_QUEUED, "bob")


def test_a_chain_goes_on_when_a_ledger_is_opened_again(
    url: str, wish: Wish, grant: Granter
) -> None:
    for name in ("r-1", "r-2"):
        ledger = SQLLedger(url)
        grant(ledger, wish(name))
        ledger.close()
    assert verdict(SQLLedger(url)).count == 4
    assert verdict(SQLLedger(url)).flaw is None


def test_a_write_that_is_undone_leaves_the_chain_as_it_was(
    url: str, wish: Wish, grant: Granter
) -> None:
    ledger = SQLLedger(url)
    grant(ledger, wish("r-1"), ends_at=5.0)
    held = grant(ledger, wish("r-2"))
    with pytest.raises(LedgerUnavailable):
        ledger.bind(held.id, held.token, 9.0, active_at=object())
    assert len(ledger.event_rows()) == 4, "the end of the first lease is undone too"
    ledger.submit(wish("r-3", at=9.0))
    assert verdict(ledger).flaw is None
    assert verdict(ledger).count == 6


def spoil(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "kind", "sequence"),
    [
        ("UPDATE aistack_events SET at = at + 1 WHERE sequence = 2", "edited", 2),
        ("UPDATE aistack_events SET \"user\" = 'eve' WHERE sequence = 3", "edited", 3),
        ("UPDATE aistack_events SET kind = 'Dreamt' WHERE sequence = 2", "edited", 2),
        ("DELETE FROM aistack_events WHERE sequence = 2", "missing", 2),
        ("DELETE FROM aistack_events WHERE sequence = 1", "missing", 1),
    ],
)
def test_what_is_done_to_a_ledger_behind_its_back_is_seen(
    url: str, wish: Wish, statement: str, kind: str, sequence: int
) -> None:
    ledger = SQLLedger(url)
    for name in ("r-1", "r-2", "r-3", "r-4"):
        ledger.submit(wish(name))
    spoil(url, statement)
    flaw = verdict(ledger).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind(kind), sequence)


def test_events_that_are_removed_from_the_end_are_missed(url: str, wish: Wish) -> None:
    ledger = SQLLedger(url)
    for name in ("r-1", "r-2"):
        ledger.submit(wish(name))
    spoil(url, "DELETE FROM aistack_events WHERE sequence = 2")
    assert verdict(ledger).link.sequence == 1
    assert ledger.chain_ends().end.sequence == 2


def test_a_drain_tells_what_it_is_and_what_it_changes_of_leases(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    grant(ledger, wish("r-1"))
    drain = Drain(device_id="GPU-1", host="box", since=1.0, created_by="op")
    ledger.drain(drain, 1.0)
    ledger.undrain("box", "GPU-1", 2.0)
    events = {event.kind: event for event in ledger.events()}
    drained = json.loads(events[EventKind.DEVICE_DRAINED].after)
    assert drained == json.loads(events[EventKind.DEVICE_UNDRAINED].before)
    assert drained["created_by"] == "op"
    told = events[EventKind.LEASE_DRAINED]
    assert (told.before, told.owner) == ("", "ann")
    assert json.loads(told.after) == {"conditions": ["DeviceDrained"]}
