from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device import (
    Device,
    Enforcement,
    ProcessUse,
)
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition, Outcome
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    DriverNotFound,
    InvalidRequest,
    LeaseLost,
    LedgerUnavailable,
    PrepareFailed,
    ProviderError,
    QueueClosed,
    QuotaExceeded,
    StaleToken,
    UnknownProfile,
    UnknownQueue,
    Unsatisfiable,
)
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.system.pid_namespace import PidNamespace
from jupyter_aistack.testing import ManualClock, holder, simulated_broker
from tests.fakes.bare_provider import BareProvider, Leases, Pids


class Bench(BareProvider):
    """One GPU whose every answer a test may set."""

    name = "bench"

    def __init__(self) -> None:
        super().__init__()
        self.undone: list[str] = []

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        return Preparation(
            environment={"CUDA_VISIBLE_DEVICES": "GPU-0"}, enforced_by=Enforcement.L0
        )

    def unprepare(self, lease: Lease) -> None:
        self.undone.append(lease.id)

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        used = {i: Usage(memory_bytes=len(pids.get(i, ()))) for i in leases}
        return {i: DeviceSample(memory_bytes=1, leases=used) for i in devices}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def living() -> set[int]:
    return set()


@pytest.fixture
def broker(bench: Bench, clock: ManualClock, living: set[int]) -> Iterator[Broker]:
    queues = (
        Queue(name="default"),
        Queue(name="half", limit=Fraction(1, 2)),
        Queue(name="shut", is_open=False),
    )
    broker = Broker(
        MemoryLedger(),
        [bench],
        policy=Policy(queues=queues),
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: pid in living,
        pid_namespace=PidNamespace(is_initial=lambda: True),
    )
    yield broker
    broker.close()


def lease_of(
    broker: Broker, spec: str, name: str = "kernel-1", **options: object
) -> Lease:
    request = broker.submit(
        spec,
        holder(name, **{k: options.pop(k) for k in ("pid",) if k in options}),
        **options,
    )  # type: ignore[arg-type]
    assert request.state is RequestState.GRANTED, request.reason
    return broker.lease(request.lease_id)


def test_a_request_that_fits_is_granted_at_once_and_prepared(broker: Broker) -> None:
    lease = lease_of(broker, "1/4")
    prepared = broker.prepare(lease)
    assert prepared.environment == {
        "CUDA_VISIBLE_DEVICES": "GPU-0",
        "AISTACK_LEASE": lease.id,
    }
    assert broker.lease(lease.id).enforced_by is Enforcement.L0
    assert (
        broker.activate(lease.id, lease.token, verified=True).state is LeaseState.ACTIVE
    )


def test_a_waiting_request_is_granted_when_the_first_releases(broker: Broker) -> None:
    first = lease_of(broker, "1")
    second = broker.submit("1/2", holder("kernel-2"))
    assert second.state is RequestState.QUEUED
    assert (
        broker.queue()[0].reason
        == "needs 1/2 of a GPU; what is in its way has no end that is known"
    )
    assert [r.id for r in broker.queue()] == [second.id]
    broker.release(first.id, first.token)
    assert broker.request(second.id).state is RequestState.GRANTED


def test_releasing_twice_is_releasing_once_and_undoes_the_preparation(
    broker: Broker, bench: Bench
) -> None:
    lease = lease_of(broker, "1/4")
    assert broker.release(lease.id, lease.token).outcome is Outcome.RELEASED
    assert broker.release(lease.id, lease.token).outcome is Outcome.RELEASED
    assert bench.undone == [lease.id]


def test_what_was_prepared_is_undone_when_the_lease_runs_out(
    broker: Broker, bench: Bench, clock: ManualClock
) -> None:
    lease = lease_of(broker, "1/4")
    broker.prepare(lease)
    clock.advance(61)
    broker.cycle()
    assert bench.undone == [lease.id]


def test_a_waiting_request_of_a_dead_process_is_turned_down(
    broker: Broker, clock: ManualClock, living: set[int]
) -> None:
    living.add(7)
    first = lease_of(broker, "1")
    waiting = broker.submit("1/4", holder("kernel-2", pid=7))
    living.clear()
    broker.cycle()
    clock.advance(1)
    broker.release(first.id, first.token)
    assert (broker.request(waiting.id).state, broker.leases()) == (
        RequestState.REJECTED,
        (),
    )


def test_a_lease_that_runs_out_while_being_released_is_shown_as_it_ended(
    broker: Broker, bench: Bench, clock: ManualClock
) -> None:
    lease = lease_of(broker, "1/4", lease_seconds=50.0)
    bench.unprepare = lambda _: clock.advance(100)  # type: ignore[method-assign]
    assert broker.release(lease.id, lease.token).outcome is Outcome.EXPIRED


def test_a_lease_nobody_renews_ends_and_its_token_is_worth_nothing(
    broker: Broker, clock: ManualClock
) -> None:
    lease = lease_of(broker, "1")
    clock.advance(61)
    other = lease_of(broker, "1", "kernel-2")
    assert other.token > lease.token
    with pytest.raises(LeaseLost):
        broker.renew(lease.id, lease.token)
    with pytest.raises(StaleToken):
        broker.renew(other.id, lease.token)


def test_a_lease_is_kept_while_its_process_lives_and_reaped_when_it_dies(
    broker: Broker, clock: ManualClock, living: set[int]
) -> None:
    living.add(4242)
    lease = lease_of(broker, "1/4", pid=4242)
    for _ in range(10):
        clock.advance(30)
        broker.maintain()
    assert broker.lease(lease.id).is_live
    living.clear()
    broker.maintain()
    assert broker.lease(lease.id).is_live, "it may be a kernel between two lives"
    clock.advance(1)
    broker.maintain()
    assert broker.lease(lease.id).outcome is Outcome.ABANDONED


def test_a_lease_with_an_end_ends_however_often_it_is_renewed_unless_extended(
    broker: Broker, clock: ManualClock, living: set[int]
) -> None:
    living.add(1)
    lease = lease_of(broker, "1/4", pid=1, lease_seconds=100.0)
    broker.extend(lease.id, lease.token, 50)
    for _ in range(14):
        clock.advance(10)
        broker.maintain()
    assert broker.lease(lease.id).is_live
    clock.advance(10)
    broker.maintain()
    assert broker.lease(lease.id).outcome is Outcome.EXPIRED


def test_memory_of_strangers_is_not_granted_and_comes_back_when_they_leave(
    broker: Broker, bench: Bench, clock: ManualClock
) -> None:
    bench.processes = (ProcessUse(pid=999_999_999, memory_bytes=60 * GIB),)
    waiting = broker.submit("1/2", holder())
    assert (
        "60.0 GiB of its memory are held by processes outside aistack"
        in broker.queue()[0].reason
    )
    bench.processes = ()
    clock.advance(3)
    broker.cycle()
    assert broker.request(waiting.id).state is RequestState.GRANTED


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("2", Unsatisfiable),
        ("100GiB", Unsatisfiable),
        ("1/2x2", Unsatisfiable),
        ("cpu:1", Unsatisfiable),
        ("1g.10gb", UnknownProfile),
    ],
)
def test_what_this_host_could_never_hold_is_refused_and_leaves_no_trace(
    broker: Broker, spec: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"^spec: {spec} cannot be had") as caught:
        broker.submit(spec, holder())
    assert caught.value.facts["field"] == "spec"  # type: ignore[attr-defined]
    assert not broker.queue()
    assert not broker.events()


def test_queues_are_checked_by_name_state_and_limit(broker: Broker) -> None:
    with pytest.raises(UnknownQueue, match="there is default, half, shut"):
        broker.submit("1/4", holder(), queue="nowhere")
    with pytest.raises(QueueClosed):
        broker.submit("1/4", holder(), queue="shut")
    with pytest.raises(QuotaExceeded, match="queue: queue half may hold 1/2"):
        broker.submit("1", holder(), queue="half")
    with pytest.raises(InvalidRequest):
        broker.submit("banana", holder())
    assert not broker.events()


def test_a_request_without_patience_is_refused_rather_than_queued(
    broker: Broker,
) -> None:
    lease_of(broker, "1")
    with pytest.raises(AcquireTimeout, match="timed out waiting"):
        broker.submit("1/4", holder("kernel-2"), patience_seconds=0)
    assert not broker.queue()


def test_a_cancelled_request_is_never_granted(broker: Broker) -> None:
    first = lease_of(broker, "1")
    waiting = broker.submit("1", holder("kernel-2"))
    assert broker.cancel(waiting.id).state is RequestState.CANCELLED
    broker.release(first.id, first.token)
    assert not broker.leases()


def test_a_broken_driver_is_reported_and_the_rest_goes_on(clock: ManualClock) -> None:
    broken = Bench()
    broken.failures["discover"] = DriverNotFound("no driver answers")
    broker = Broker(MemoryLedger(), [broken, Bench()], host="testbox", clock=clock)
    assert broker.inventory().problems == ("bench: no driver answers",)
    assert lease_of(broker, "1/4").slices[0].device_id == "GPU-0"


def test_a_driver_that_falls_silent_keeps_its_devices_and_their_queue(
    broker: Broker, bench: Bench, clock: ManualClock
) -> None:
    first = lease_of(broker, "1")
    waiting = broker.submit("1/4", holder("kernel-2"))
    bench.failures["discover"] = ProviderError("the driver does not answer")
    clock.advance(3)
    broker.renew(first.id, first.token)
    broker.release(first.id, first.token)
    assert broker.request(waiting.id).state is RequestState.QUEUED
    assert "the driver does not answer" in broker.queue()[0].reason
    broker.submit("1/2", holder("kernel-3"))
    assert "does not answer" in broker.queue()[1].reason
    bench.failures.clear()
    clock.advance(3)
    broker.cycle()
    assert broker.request(waiting.id).state is RequestState.GRANTED


def test_a_request_that_could_not_be_answered_is_taken_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LedgerUnavailable

    monkeypatch.setattr(broker.ledger, "write", fail)
    with pytest.raises(LedgerUnavailable):
        broker.submit("1", holder())
    monkeypatch.undo()
    broker.cycle()
    assert (broker.queue(), broker.leases()) == ((), ())


def test_an_extension_in_the_last_moment_counts(
    broker: Broker, clock: ManualClock
) -> None:
    lease = lease_of(broker, "1/4", lease_seconds=30.0)
    clock.advance(28)
    broker.extend(lease.id, lease.token, 3600)
    clock.advance(20)
    broker.cycle()
    assert broker.lease(lease.id).is_live


def test_a_lease_left_in_the_middle_of_its_release_runs_out(
    broker: Broker, clock: ManualClock, living: set[int]
) -> None:
    living.add(9)
    lease = lease_of(broker, "1", pid=9)
    broker.ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, clock())
    for _ in range(3):
        clock.advance(30)
        broker.maintain()
    assert not broker.leases()


def test_more_memory_than_the_slice_has_is_said_on_the_lease_and_taken_back(
    broker: Broker,
    bench: Bench,
    clock: ManualClock,
    living: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    living.add(os.getpid())
    lease = lease_of(broker, "1/4", pid=os.getpid())
    for held, words in ((30 * GIB, "30.0 GiB of 20.0 GiB"), (5 * GIB, "")):
        monkeypatch.setattr(
            bench,
            "sample",
            lambda devices, leases, pids, since, held=held: {
                "GPU-0": DeviceSample(leases={lease.id: Usage(memory_bytes=held)})
            },
        )
        clock.advance(11)
        broker.maintain()
        note = conditions_text(broker.lease(lease.id).conditions)
        assert words in note
        assert bool(words) == bool(note)


def test_use_is_unknown_not_zero_while_a_workers_process_is_unknown(
    broker: Broker, living: set[int]
) -> None:
    living.add(os.getpid())
    worker = Holder(
        kind=HolderKind.WORKER, id="w-0", user="ann", host="testbox", pid=os.getpid()
    )
    request = broker.submit("1/4", worker)
    assert broker.usage()[0][request.lease_id].memory_bytes is None


def test_a_slice_that_cannot_be_prepared_fails_its_lease_and_frees_the_device() -> None:
    broker = simulated_broker()
    lease = lease_of(broker, "1")
    broker.devices.providers[0].fail_prepare("the daemon did not start")  # type: ignore[attr-defined]
    with pytest.raises(PrepareFailed, match="daemon did not start"):
        broker.prepare(lease)
    ended = broker.lease(lease.id)
    assert (ended.outcome, conditions_text(ended.conditions)) == (
        Outcome.FAILED,
        "the daemon did not start",
    )
    assert lease_of(broker, "1", "kernel-2").is_live


def test_use_is_measured_per_lease_over_its_own_processes_only(
    broker: Broker, living: set[int]
) -> None:
    living.add(os.getpid())
    lease = lease_of(broker, "1/4", pid=os.getpid())
    by_lease, by_device = broker.usage()
    assert by_lease[lease.id].memory_bytes is not None
    assert by_lease[lease.id].memory_bytes >= 1
    assert by_device["GPU-0"].memory_bytes == 1


def test_everything_that_happened_is_on_record_in_order(broker: Broker) -> None:
    lease = lease_of(broker, "1")
    broker.submit("1/4", holder("kernel-2"))
    broker.release(lease.id, lease.token)
    kinds = [event.kind.value for event in broker.events()]
    assert kinds == [
        "RequestQueued",
        "LeaseGranted",
        "RequestQueued",
        "LeaseReleased",
        "LeaseGranted",
    ]
    assert [event.sequence for event in broker.events()] == sorted(
        {e.sequence for e in broker.events()}
    )
