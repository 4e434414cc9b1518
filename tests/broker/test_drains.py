"""Devices out of placement by hand: nothing new is granted on them, what is leased there
goes on, and it is known why and until when.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.drain import DrainKind
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import InvalidRequest, Refused
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.testing import ManualClock, holder, simulated_broker

DAY = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    yield SQLLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


@pytest.fixture
def broker(ledger: Ledger, clock: ManualClock) -> Iterator[Broker]:
    built = simulated_broker("2xH100-80GB", ledger=ledger, clock=clock)
    yield built
    built.close()


def ask(broker: Broker, spec: str = "1/2", name: str = "k-1") -> Request:
    return broker.submit(spec, holder(name, host=broker.host, pid=os.getpid()))


def granted(broker: Broker, spec: str = "1/2", name: str = "k-1") -> Lease:
    return broker.lease(ask(broker, spec, name).lease_id)


def reason(broker: Broker) -> str:
    (waiting,) = broker.waiting()
    return waiting.reason


def gpus(broker: Broker) -> list[str]:
    return [device.id for device in broker.inventory().devices]


def test_nothing_new_is_granted_on_a_drained_device_and_what_is_there_goes_on(
    broker: Broker,
) -> None:
    lease = granted(broker, "1/4")
    (device_id,) = {slice_.device_id for slice_ in lease.slices}
    drained = broker.drains.drain(device_id, reason="a fan", created_by="ops")
    assert drained.drain is not None
    assert (drained.drain.kind, drained.drain.reason) == (DrainKind.DRAIN, "a fan")
    for name in ("k-2", "k-3"):
        other = granted(broker, name=name)
        assert {slice_.device_id for slice_ in other.slices} != {device_id}
    assert ask(broker, name="k-4").lease_id == ""
    assert "is being drained: a fan" in reason(broker)
    assert broker.lease(lease.id).is_live
    (told,) = (c for c in broker.lease(lease.id).conditions)
    assert told.kind is ConditionKind.DEVICE_DRAINED
    assert "this lease goes on" in told.message


def test_a_drain_ends_by_itself_and_who_waits_is_served(
    broker: Broker, clock: ManualClock
) -> None:
    until = clock.now + 3600
    lease = granted(broker, "1/4")
    for device_id in gpus(broker):
        broker.drains.drain(device_id, until=until)
    request = ask(broker, name="k-2")
    (waiting,) = broker.waiting()
    assert waiting.eta_at == until
    assert "is being drained until" in waiting.reason
    clock.advance(3599.0)
    broker.cycle()
    assert not broker.request(request.id).lease_id
    clock.advance(1.0)
    broker.renew(lease.id, lease.token)
    broker.maintain()
    assert broker.request(request.id).lease_id
    assert broker.lease(lease.id).conditions == ()
    assert all(device.drain is None for device in broker.drains.inventory().devices)
    kinds = [event.kind for event in broker.events()]
    assert kinds.count(EventKind.DEVICE_DRAINED) == 2
    assert kinds.count(EventKind.DEVICE_UNDRAINED) == 2
    assert kinds.count(EventKind.LEASE_DRAINED) == 1


def test_a_request_is_not_refused_for_good_for_a_drain_without_end(
    broker: Broker,
) -> None:
    for device_id in gpus(broker):
        broker.drains.drain(device_id)
    request = ask(broker, "2")
    (waiting,) = broker.waiting()
    assert (waiting.request.id, waiting.eta_at) == (request.id, None)
    assert "is being drained" in waiting.reason


def test_a_quarantine_lasts_until_somebody_ends_it(
    broker: Broker, clock: ManualClock
) -> None:
    for device_id in gpus(broker):
        broker.drains.drain(device_id, kind=DrainKind.QUARANTINE, reason="it miscounts")
    request = ask(broker)
    clock.advance(30 * DAY)
    broker.maintain()
    assert "is in quarantine: it miscounts" in reason(broker)
    undrained = broker.drains.undrain("0")
    assert undrained.drain is None
    assert broker.request(request.id).lease_id, "served at once"
    with pytest.raises(Refused, match="is not being drained"):
        broker.drains.undrain("0")


def test_a_later_word_on_a_device_replaces_the_former(
    broker: Broker, clock: ManualClock
) -> None:
    lease = granted(broker, "2")
    broker.drains.drain("0", until=clock.now + 60)
    broker.drains.drain("0", until=clock.now + 7200, reason="longer")
    broker.drains.drain("1")
    clock.advance(61.0)
    broker.maintain()
    drains = [device.drain for device in broker.drains.inventory().devices]
    assert [drain is not None and drain.reason for drain in drains] == ["longer", ""]
    broker.drains.undrain("0")
    (told,) = broker.lease(lease.id).conditions
    assert "(simulated) 1 is being drained" in told.message, "by the other"
    broker.drains.undrain("1")
    assert broker.lease(lease.id).conditions == ()


@pytest.mark.parametrize(
    ("device", "until", "sentence"),
    [
        ("7", None, "device: none is called '7'; there is 0 ("),
        ("nothing", None, "device: none is called 'nothing'"),
        ("SIM", None, "device: none is called 'SIM'"),
        ("0", 5.0, "until: that time is over already"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    broker: Broker, device: str, until: float | None, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        broker.drains.drain(device, until=until)
    assert caught.value.message.startswith(sentence)
    assert broker.events() == ()


def test_a_drain_outlasts_its_broker_and_holds_for_others_at_once(
    tmp_path: Path, clock: ManualClock
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    first, second = (
        simulated_broker("1xH100-80GB", ledger=SQLLedger(url), clock=clock)
        for _ in range(2)
    )
    second.inventory()  # known before, and not asked for again for two seconds
    first.drains.drain("0")
    assert ask(second).lease_id == ""
    first.close()
    third = simulated_broker("1xH100-80GB", ledger=SQLLedger(url), clock=clock)
    third.maintain()
    assert "is being drained" in reason(third)
    third.drains.undrain("0")
    second.close()
    third.close()
