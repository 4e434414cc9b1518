"""A row that cannot be read does not stop the others, and frees nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction

import pytest
import sqlalchemy as sa

from jupyter_aistack.core.model.condition import ConditionKind, new_condition
from jupyter_aistack.core.model.device import EVERY_DEVICE
from jupyter_aistack.core.model.device_health import DeviceFault, HealthCode
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LeaseNotFound
from jupyter_aistack.ledger.sql.ledger import SQLLedger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


def spoil(url: str, table: str, column: str, value: str, key: str = "") -> None:
    """Write what none of ours writes, into the row of that id or into all."""
    engine = sa.create_engine(url)
    where = " WHERE id = :key" if key else ""
    change = sa.text(f"UPDATE {table} SET {column} = :value{where}")
    with engine.begin() as connection:
        connection.execute(change, {"value": value, **({"key": key} if key else {})})
    engine.dispose()


@pytest.mark.parametrize("column", ["spec", "holder"])
def test_a_request_is_left_out_and_said_once(
    url: str, wish: Wish, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = SQLLedger(url)
    for name in ("r-1", "r-2"):
        ledger.submit(wish(name))
    assert ledger.problems() == ()
    spoil(url, "aistack_requests", column, "{", "r-1")
    ledger.close()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [each.id for each in ledger.read("box", 0.0).requests] == ["r-2"]
            ledger.submit(wish("r-3"))
            ledger.cancel("r-3", 1.0)
    with pytest.raises(LeaseNotFound):
        ledger.request("r-1")
    assert ledger.problems() == (
        f"ledger_url: the request r-1 in {ledger.shown_url} cannot be read; it is left out",
    )
    assert [record.getMessage() for record in caplog.records] == [*ledger.problems()]
    ledger.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spec", "many"),
        ("holder", "{"),
        ("state", "dreaming"),
        ("conditions", '[{"kind": "Mood"}]'),
        ("notice", "[]"),
        ("residence", "7"),
        ("enforced_by", "goodwill"),
    ],
)
def test_a_lease_keeps_what_it_holds_and_can_be_ended(
    url: str, wish: Wish, grant: Granter, column: str, value: str
) -> None:
    ledger = SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    other = grant(ledger, wish("r-2"))
    spoil(url, "aistack_leases", column, value, lease.id)
    ledger.close()
    read, readable = ledger.read("box", 1.0).leases
    assert (read.id, read.slices, read.is_live) == (lease.id, lease.slices, True)
    assert read.holder.host == "box"
    assert readable == other
    assert "what it holds stays held" in ledger.problems()[0]
    ended = ledger.step(lease.id, lease.token, LeaseTransition.FAIL, 2.0)
    assert ended.state is LeaseState.ENDED
    assert [each.id for each in ledger.read("box", 3.0).leases] == [other.id]
    ledger.close()


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ('[{"device_id":"GPU-1","kind":"share"', {"GPU-1"}),
        ("", {EVERY_DEVICE}),
        ('{"device": "GPU-1"}', {EVERY_DEVICE}),
    ],
)
def test_slices_that_cannot_be_read_are_whole_devices(
    url: str, wish: Wish, grant: Granter, value: str, devices: set[str]
) -> None:
    ledger = SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    spoil(url, "aistack_leases", "slices", value, lease.id)
    ledger.close()
    [read] = ledger.read("box", 1.0).leases
    assert {each.device_id for each in read.slices} == devices
    assert {each.fraction for each in read.slices} == {Fraction(1)}
    ledger.close()


def test_an_ended_lease_stays_ended(url: str, wish: Wish, grant: Granter) -> None:
    ledger = SQLLedger(url)
    lease = grant(ledger, wish("r-1"))
    ledger.step(lease.id, lease.token, LeaseTransition.FAIL, 2.0)
    spoil(url, "aistack_leases", "state", "dreaming", lease.id)
    spoil(url, "aistack_leases", "outcome", "woken", lease.id)
    ledger.close()
    assert ledger.read("box", 3.0).leases == ()
    [read] = ledger.leases(3.0, live=False)
    assert read.state is LeaseState.ENDED
    ledger.close()


def test_events_that_cannot_be_read_are_left_out(url: str, wish: Wish) -> None:
    ledger = SQLLedger(url)
    ledger.submit(wish("r-1"))
    spoil(url, "aistack_events", "kind", "RequestDreamt")
    ledger.submit(wish("r-2"))
    assert [event.request_id for event in ledger.events()] == ["r-2"]
    assert "the event 1 in" in ledger.problems()[0]
    ledger.close()


def test_a_fault_of_a_device_that_cannot_be_read_keeps_it_out_of_placement(
    url: str,
) -> None:
    ledger = SQLLedger(url)
    fault = DeviceFault(
        host="box",
        device_id="GPU-0",
        code=HealthCode.ROW_REMAP_PENDING,
        message="is sick",
        since=1.0,
    )
    told = new_condition(ConditionKind.DEVICE_UNHEALTHY, "it is sick", 1.0)
    ledger.record_device_faults("box", "GPU-0", [fault], 1.0, told)
    spoil(url, "aistack_device_faults", "code", "Rubbish")
    (known,) = ledger.device_faults("box")
    assert (known.device_id, known.code) == ("GPU-0", HealthCode.XID_ERROR)
    assert "the device stays out of placement" in ledger.problems()[0]
    ledger.close()
