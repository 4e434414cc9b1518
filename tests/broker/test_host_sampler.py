"""Fresh samples: callers who come while a driver is asked share its next answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.broker.host_sampler import MEASURED_SECONDS, HostSampler
from jupyter_aistack.core.model.device import Device, Inventory, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.system.pid_namespace import PidNamespace
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.waiting import wait_until


class HeldDriver(SimulatedProvider):
    """Answers a question once it may, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__("2xH100-80GB")
        self.questions: list[tuple[set[str], float | None]] = []
        self.may_answer = threading.Event()

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        self.questions.append((set(leases), since))
        assert self.may_answer.wait(30.0)
        return super().sample(devices, leases, pids, since)


class Joined(list[Lease]):
    """Leases that say when a sampler has read them, which is when their caller has
    joined the others.
    """

    def __init__(self, *leases: Lease) -> None:
        super().__init__(leases)
        self.were_read = threading.Event()

    def __iter__(self) -> Iterator[Lease]:
        self.were_read.set()
        return super().__iter__()


def lease_on(device: Device, lease_id: str) -> Lease:
    """A lease of all of a device."""
    whole = Slice(
        device_id=device.id,
        kind=SliceKind.GPU,
        fraction=Fraction(1),
        memory_bytes=device.memory_bytes,
        uuid=device.id,
    )
    return Lease(
        id=lease_id,
        token=1,
        request_id="r-1",
        spec=parse_spec("1"),
        holder=holder("kernel-1", host="box"),
        slices=(whole,),
        granted_at=0.0,
        expires_at=60.0,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver() -> Iterator[HeldDriver]:
    driver = HeldDriver()
    yield driver
    driver.may_answer.set()


@pytest.fixture
def devices(driver: HeldDriver) -> tuple[Device, ...]:
    return driver.discover("box")


@pytest.fixture
def sampler(
    driver: HeldDriver, devices: tuple[Device, ...], clock: ManualClock
) -> HostSampler:
    return HostSampler(
        lambda: Inventory(host="box", devices=devices),
        lambda wanted: [(driver, wanted)],
        clock,
        PidNamespace(),
    )


Ask = Callable[..., Future[Any]]


@pytest.fixture
def ask(sampler: HostSampler) -> Iterator[Ask]:
    """Asks in a thread, and returns once the caller has joined."""
    with ThreadPoolExecutor(8) as threads:

        def call(lease: Lease, since: float | None = None) -> Future[Any]:
            leases = Joined(lease)
            answer = threads.submit(sampler.fresh, leases, {}, since)
            assert leases.were_read.wait(30.0)
            return answer

        yield call


def test_callers_who_wait_share_one_answer(
    ask: Ask, driver: HeldDriver, devices: tuple[Device, ...]
) -> None:
    first = lease_on(devices[0], "first")
    others = [lease_on(devices[1], f"other-{i}") for i in range(4)]
    answers = [ask(first)]
    wait_for_question(driver)
    answers += [ask(lease) for lease in others]
    driver.may_answer.set()
    samples = [answer.result(30.0) for answer in answers]
    assert [leases for leases, _ in driver.questions] == [
        {"first"},
        {lease.id for lease in others},
    ]
    assert len({id(sample) for sample in samples[1:]}) == 1
    assert set(samples[1].devices) == {devices[1].id}


def test_who_comes_later_is_not_answered_by_what_was_read_before(
    ask: Ask, driver: HeldDriver, devices: tuple[Device, ...]
) -> None:
    lease = lease_on(devices[0], "first")
    before = ask(lease)
    wait_for_question(driver)
    after = ask(lease)
    driver.may_answer.set()
    assert before.result(30.0) is not after.result(30.0)


def test_another_span_of_activity_is_another_question(
    ask: Ask, driver: HeldDriver, devices: tuple[Device, ...], clock: ManualClock
) -> None:
    lease = lease_on(devices[0], "first")
    ask(lease)
    wait_for_question(driver)
    answers = [ask(lease), ask(lease, since=clock() - 1.0)]
    driver.may_answer.set()
    assert answers[0].result(30.0) is not answers[1].result(30.0)
    spans = sorted(since or 0.0 for _, since in driver.questions)
    assert spans == [clock() - MEASURED_SECONDS] * 2 + [clock() - 1.0]


def wait_for_question(driver: HeldDriver) -> None:
    wait_until(lambda: driver.questions)
