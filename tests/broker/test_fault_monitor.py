"""A GPU fails for all who share it: each is told who caused it, as far as that may be
said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device import Enforcement, Fault
from jupyter_aistack.core.model.device_health import (
    UNKNOWN_HEALTH,
    DeviceFault,
    DeviceHealth,
    HealthCode,
    HealthCondition,
    dated,
    health_condition,
)
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import LedgerUnavailable, PrepareFailed, ProviderError
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.system.processes import program_of
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.scripted import Lists

SELF = os.getpid()
FAULT = Fault(device_id="GPU-0", pid=SELF, message="the server reports FAULT")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def show_names() -> bool:
    return True


@pytest.fixture
def broker(lists: Lists, clock: ManualClock, show_names: bool) -> Iterator[Broker]:
    made = Broker(
        MemoryLedger(),
        [lists],
        host="testbox",
        clock=clock,
        ttl_seconds=1e6,
        show_names=show_names,
        is_alive=lambda pid, since: True,
    )
    yield made
    made.close()


@pytest.fixture
def leases(broker: Broker) -> list[str]:
    """Ann's kernel, whose process is this one, a second one of hers, and Bob's."""
    ann = holder("kernel-1", pid=SELF, label="train.ipynb")
    held = [broker.submit("1/4", ann), broker.submit("1/4", holder("kernel-2"))]
    held.append(broker.submit("1/4", holder("kernel-3", user="bob")))
    return [request.lease_id for request in held]


def turn(broker: Broker, clock: ManualClock) -> list[str]:
    """A turn of the broker, and the notes on its leases by then."""
    clock.advance(3)
    broker.maintain()
    return [conditions_text(lease.conditions) for lease in reversed(broker.leases())]


def test_everybody_on_the_device_is_told_who_caused_it(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.broken = (FAULT,)
    own, other, bobs = turn(broker, clock)
    process = f"{program_of(SELF)} {SELF}"
    assert own == other
    assert own == (
        f"on a GPU that failed: {process} of train.ipynb caused it (the server reports FAULT); "
        "restart the kernel, nothing more runs there until all have ended"
    )
    assert f"{process} of ann: train.ipynb caused it" in bobs
    told = [
        event.lease_id
        for event in broker.events()
        if event.kind.value == "LeaseFaulted"
    ]
    assert sorted(told) == sorted(leases)


@pytest.mark.parametrize("show_names", [False])
def test_where_names_are_hidden_others_are_told_the_process_and_no_name(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.broken = (FAULT,)
    own, other, bobs = turn(broker, clock)
    assert "train.ipynb" in own
    assert "train.ipynb" in other
    assert f"{SELF} of another user caused it" in bobs
    assert "ann" not in bobs
    bob = Caller(user="bob", uid=1001, pid=7, kernel_id="kernel-3")
    shown = Service(broker, show_names=False).call("leases", {}, bob)["leases"]
    assert [bool(lease["conditions"]) for lease in shown] == [True, False, False], (
        "conditions of others may name notebooks"
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(device_id="GPU-0", pid=1, message=""),
            f"{program_of(1)} 1, which has no lease, caused it;",
        ),
        (
            Fault(device_id="GPU-0", pid=2**22, message=""),
            f"process {2**22}, which has no lease, caused it;",
        ),
        (
            Fault(device_id="GPU-0", pid=None, message=""),
            "it is unknown which process caused it; restart the",
        ),
        (
            Fault(device_id="GPU-0", pid=None, message="GPU 0 lost its daemon"),
            "failed: GPU 0 lost its daemon; restart the",
        ),
    ],
)
def test_what_is_not_known_is_not_made_up(
    broker: Broker,
    lists: Lists,
    clock: ManualClock,
    leases: list[str],
    fault: Fault,
    words: str,
) -> None:
    lists.broken = (fault,)
    assert all(words in note for note in turn(broker, clock))


def test_it_is_told_once_by_however_many_brokers_and_again_when_it_happens_again(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    other = Broker(broker.ledger, [lists], host="testbox", clock=clock, ttl_seconds=1e6)
    lists.broken = (FAULT,)
    for each in (broker, other, broker):
        turn(each, clock)
    assert (
        len([event for event in broker.events() if event.kind.value == "LeaseFaulted"])
        == 3
    )
    lists.broken = ()
    turn(broker, clock)
    lease = broker.lease(leases[0])
    broker.activate(
        lease.id, lease.token, verified=True
    )  # the kernel was started again, and checked
    lists.broken = (FAULT,)
    turn(broker, clock)
    assert (
        len([event for event in broker.events() if event.kind.value == "LeaseFaulted"])
        == 4
    )


def test_nothing_is_granted_there_until_it_works_again(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.broken = (FAULT,)
    turn(broker, clock)
    waiting = broker.submit("1/4", holder("kernel-4"))
    assert waiting.state is RequestState.QUEUED
    lists.broken = ()
    turn(broker, clock)
    assert broker.request(waiting.id).state is RequestState.GRANTED


def test_leases_elsewhere_are_not_told(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.broken = (Fault(device_id="GPU-1", pid=SELF, message=""),)
    assert turn(broker, clock) == ["", "", ""]


def test_leases_that_no_server_holds_are_not_told(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    levels = (Enforcement.L0, Enforcement.WHOLE, Enforcement.L2)
    for lease_id, level in zip(leases, levels, strict=True):
        lease = broker.lease(lease_id)
        broker.ledger.bind(lease.id, lease.token, clock(), enforced_by=level)
    lists.broken = (FAULT,)
    assert [bool(note) for note in turn(broker, clock)] == [False, False, True]


def test_a_provider_that_cannot_tell_stops_nothing(
    broker: Broker,
    lists: Lists,
    clock: ManualClock,
    leases: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> tuple[Fault, ...]:
        raise ProviderError("the log cannot be read")

    monkeypatch.setattr(lists, "faults", fail)
    assert turn(broker, clock) == ["", "", ""]


# -- the device itself is sick -------------------------------------------------------------

SICK = health_condition(
    HealthCode.XID_ERROR, "reported Xid 95; reset it", evidence="energy 900"
)
TOLD = (
    "on a sick GPU: H100 reported Xid 95; reset it; save what you can, and go on "
    "on another GPU"
)


def sick(*conditions: HealthCondition) -> DeviceHealth:
    return DeviceHealth(conditions=dated(conditions, {}, 1000.0))


def kinds(broker: Broker, *wanted: EventKind) -> list[EventKind]:
    return [event.kind for event in broker.events() if event.kind in wanted]


def test_a_device_that_is_sick_itself_is_told_once_to_all_who_hold_a_part_of_it(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    for lease in broker.leases():
        changes = {"enforced_by": Enforcement.L0}
        broker.ledger.bind(lease.id, lease.token, clock(), **changes)
    lists.health = sick(SICK)
    assert turn(broker, clock) == [TOLD] * len(leases)
    more = health_condition(HealthCode.FELL_OFF_BUS, "fell off the bus")
    lists.health = sick(SICK, more)
    assert turn(broker, clock) == [TOLD] * len(leases)
    faulted = kinds(broker, EventKind.LEASE_FAULTED, EventKind.DEVICE_FAULTED)
    told = [EventKind.LEASE_FAULTED] * len(leases)
    assert faulted == [EventKind.DEVICE_FAULTED, *told, EventKind.DEVICE_FAULTED]
    events = [e for e in broker.events() if e.kind is EventKind.DEVICE_FAULTED]
    assert [(e.device_id, e.detail) for e in events] == [
        ("GPU-0", "XidError: reported Xid 95; reset it"),
        ("GPU-0", "FellOffBus: fell off the bus"),
    ]


def test_a_device_that_has_recovered_is_granted_again_and_its_leases_are_well(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.health = sick(SICK)
    turn(broker, clock)
    waiting = broker.submit("1/4", holder("kernel-4"))
    assert waiting.state is RequestState.QUEUED
    lists.health = UNKNOWN_HEALTH
    assert turn(broker, clock) == [""] * (len(leases) + 1)
    assert broker.request(waiting.id).state is RequestState.GRANTED
    assert kinds(broker, EventKind.DEVICE_RECOVERED) == [EventKind.DEVICE_RECOVERED]
    assert broker.ledger.device_faults("testbox") == ()
    lists.health = sick(SICK)
    assert turn(broker, clock) == [TOLD] * (len(leases) + 1), "told anew"


def test_a_device_that_does_not_answer_has_not_recovered(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.health = sick(SICK)
    turn(broker, clock)
    lists.health = UNKNOWN_HEALTH
    lists.broken = (FAULT,)
    told = turn(broker, clock)
    assert len(told) == len(leases)
    assert all(text.startswith(f"{TOLD}; on a GPU that failed: ") for text in told)
    assert len(broker.ledger.device_faults("testbox")) == 1


def test_a_broker_that_is_started_again_knows_what_is_sick_and_tells_nobody_again(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.health = sick(SICK)
    turn(broker, clock)
    after = Lists()
    after.health = lists.health
    again = Broker(broker.ledger, [after], host="testbox", clock=clock, ttl_seconds=1e6)
    assert turn(again, clock) == [TOLD] * len(leases)
    (known,) = after.restored
    assert (known.code, known.since, known.evidence) == (
        HealthCode.XID_ERROR,
        1000.0,
        "energy 900",
    )
    faulted = kinds(again, EventKind.LEASE_FAULTED, EventKind.DEVICE_FAULTED)
    assert len(faulted) == len(leases) + 1
    after.health = UNKNOWN_HEALTH
    turn(again, clock)
    assert kinds(again, EventKind.DEVICE_RECOVERED) == [EventKind.DEVICE_RECOVERED]


def test_a_holder_whose_kernel_started_on_a_sick_device_is_told_too(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.health = sick(SICK)
    turn(broker, clock)
    lease = broker.lease(leases[0])
    broker.activate(lease.id, lease.token, verified=True)
    assert turn(broker, clock) == [TOLD] * len(leases)


def test_a_lease_that_is_in_use_survives_that_its_device_is_sick(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lease = broker.lease(leases[0])
    broker.activate(lease.id, lease.token, verified=True)
    lists.health = sick(SICK)
    turn(broker, clock)
    lists.is_closed = True
    with pytest.raises(PrepareFailed):
        broker.prepare(broker.lease(lease.id))
    assert broker.lease(lease.id).is_live


def test_a_warning_of_a_device_is_nobodys_fault(
    broker: Broker, lists: Lists, clock: ManualClock, leases: list[str]
) -> None:
    lists.health = sick(health_condition(HealthCode.POWER_BRAKE, "runs slowly"))
    assert turn(broker, clock) == [""] * len(leases)
    assert broker.ledger.device_faults("testbox") == ()


def test_what_is_written_down_cannot_be_read_now(
    broker: Broker, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(host: str) -> tuple[DeviceFault, ...]:
        raise LedgerUnavailable("locked")

    monkeypatch.setattr(broker.ledger, "device_faults", fail)
    lists.restored = None
    broker.devices.forget()
    broker.inventory()
    assert lists.restored is None, "nothing is taken for over"
