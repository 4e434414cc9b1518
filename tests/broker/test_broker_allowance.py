"""Brokers of one host and one ledger whose launchers may use different devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.request import Holder, Request, RequestState
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.bare_provider import BareProvider, Leases, Pids

ALL = (0, 1, 2, 3)


class Shown(BareProvider):
    """The GPUs of these numbers, of four that the host has."""

    name = "shown"

    def __init__(self, *numbers: int) -> None:
        super().__init__(*numbers)
        self.counter = 0

    @property
    def allowance(self) -> str:
        return "" if self.numbers == ALL else ",".join(map(str, self.numbers))

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        sample = DeviceSample(millijoules=self.counter, others=0.0)
        return dict.fromkeys(devices, sample)


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, own_ledger: str) -> Ledger:
    return MemoryLedger() if request.param == "memory" else SQLLedger(own_ledger)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gone() -> set[int]:
    """Ids of processes that have ended."""
    return set()


@pytest.fixture
def launched(
    ledger: Ledger, clock: ManualClock, gone: set[int]
) -> Iterator[Callable[[tuple[int, ...]], Broker]]:
    """A broker whose launcher may use these GPUs."""
    brokers: list[Broker] = []

    def build(numbers: tuple[int, ...]) -> Broker:
        broker = Broker(
            ledger,
            [Shown(*numbers)],
            host="testbox",
            clock=clock,
            is_alive=lambda pid, since: pid not in gone,
        )
        brokers.append(broker)
        return broker

    yield build
    for broker in brokers:
        broker.close()


def ask(broker: Broker, name: str, spec: str = "1", pid: int = 1) -> Request:
    return broker.submit(spec, holder(name, pid=pid))


def device_of(broker: Broker, request: Request) -> str:
    decided = broker.request(request.id)
    assert decided.state is RequestState.GRANTED, decided.reason
    return broker.lease(decided.lease_id).slices[0].device_id


def is_waiting(broker: Broker, request: Request) -> bool:
    return broker.request(request.id).state is RequestState.QUEUED


def test_no_other_broker_gives_what_the_asker_may_not_use(launched) -> None:
    narrow, wide = launched((2,)), launched(ALL)
    first = ask(narrow, "a-1")
    assert device_of(narrow, first) == "GPU-2"
    second = ask(narrow, "a-2")
    wide.cycle()
    assert is_waiting(wide, second)
    # And nobody waits behind it for devices that it cannot have.
    assert device_of(wide, ask(wide, "b-1")) == "GPU-0"

    held = narrow.lease(narrow.request(first.id).lease_id)
    narrow.release(held.id, held.token)
    narrow.cycle()
    assert device_of(narrow, second) == "GPU-2"


def test_a_narrow_broker_refuses_nobody_what_it_cannot_see(launched) -> None:
    narrow, wide = launched((2,)), launched(ALL)
    ask(wide, "b-1")
    waiting = ask(wide, "b-2", "4")
    narrow.cycle()
    assert is_waiting(wide, waiting)


def test_what_one_waits_for_keeps_nothing_from_the_other(launched) -> None:
    left, right = launched((0, 1)), launched((2, 3))
    assert device_of(right, ask(right, "b-1", "2")) == "GPU-2"
    waiting = ask(right, "b-2")
    assert device_of(left, ask(left, "a-1")) == "GPU-0"
    left.cycle()
    assert is_waiting(right, waiting)


def test_a_gpu_that_both_may_use_is_given_once(launched) -> None:
    left, right = launched((0, 1)), launched((1,))
    assert device_of(right, ask(right, "b-1")) == "GPU-1"
    assert device_of(left, ask(left, "a-1")) == "GPU-0"
    assert is_waiting(left, ask(left, "a-2"))


def test_a_dead_request_is_ended_by_whoever_sees_it(
    launched, clock: ManualClock, gone: set[int]
) -> None:
    narrow, wide = launched((2,)), launched(ALL)
    ask(narrow, "a-1")
    dead = ask(narrow, "a-2", pid=2)
    gone.add(2)
    for _ in range(3):
        clock.advance(2.0)
        wide.cycle()
    assert wide.request(dead.id).state is RequestState.REJECTED


def pass_time(clock: ManualClock, seconds: float, *brokers: Broker) -> None:
    for _ in range(int(seconds / 2)):
        clock.advance(2.0)
        for broker in brokers:
            for provider in broker.devices.providers:
                provider.counter += 200_000  # type: ignore[attr-defined]
            broker.maintain()


def charged(broker: Broker, request: Request) -> float:
    lease_id = broker.request(request.id).lease_id
    charges = broker.ledger.charges(0, 99_999)
    return sum(charge.seconds for charge in charges if charge.lease_id == lease_id)


def test_each_records_what_no_other_does_and_nothing_counts_twice(
    launched, clock: ManualClock
) -> None:
    narrow, wide = launched((2,)), launched(ALL)
    first = ask(narrow, "a-1")
    pass_time(clock, 20.0, narrow)
    second = ask(wide, "b-1")
    pass_time(clock, 40.0, narrow, wide)
    # The one ends, and the other takes over.
    narrow.close()
    pass_time(clock, 60.0, wide)
    wide.record_usage(settle=True)
    assert charged(wide, first) == pytest.approx(120.0)
    assert charged(wide, second) == pytest.approx(100.0)


def test_a_request_is_for_what_its_asker_may_use_where_it_asks_now(launched) -> None:
    """Its server was started again, and was shown another GPU."""
    before = launched((2,))
    ask(before, "a-1")
    waiting = ask(before, "a-2")
    before.close()
    now = launched((3,))
    now.cycle()
    assert is_waiting(now, waiting)
    for asker in (holder("a-2", user="ben"), holder("a-9")):
        service_of(now).call("mine", {}, caller(asker))
    now.cycle()
    assert is_waiting(now, waiting)
    service_of(now).call("mine", {}, caller(waiting.holder))
    now.cycle()
    assert device_of(now, waiting) == "GPU-3"


def test_who_waits_is_served_where_it_waits(launched) -> None:
    before = launched((2,))
    ask(before, "a-1")
    waiting = ask(before, "a-2")
    now = launched(ALL)
    answer = service_of(now).call(
        "wait_for", {"request_id": waiting.id}, caller(waiting.holder)
    )
    assert answer["request"]["state"] == "granted"
    assert device_of(now, waiting) != "GPU-2"


def service_of(broker: Broker) -> Service:
    return Service(broker)


def caller(who: Holder) -> Caller:
    return Caller(user=who.user, uid=1000, pid=1, kernel_id=who.id, kernel_pid=1)
