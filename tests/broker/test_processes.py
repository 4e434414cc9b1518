"""Who keeps a lease: a living holder does, whatever time does; the dead do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.processes import HolderProcesses
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition, Outcome
from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.exceptions import AcquireTimeout, LedgerUnavailable
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.ledgers import FailingLedger

KERNEL, SERVER, SCRIPT = 11, 12, 13
PAUSE = 75.0
"""Longer than a lease lives without renewal."""
Build = Callable[[], Broker]


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    ledger: Ledger = SQLLedger(url) if is_file else MemoryLedger()
    yield ledger
    ledger.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def living() -> set[int]:
    return {KERNEL, SERVER, SCRIPT}


@pytest.fixture
def build(ledger: Ledger, clock: ManualClock, living: set[int]) -> Build:
    """Builds one more broker of the same host on the same ledger."""

    def build() -> Broker:
        return Broker(
            ledger,
            [SimulatedProvider("1xH100-80GB")],
            host="testbox",
            clock=clock,
            is_alive=lambda pid, since: pid in living,
        )

    return build


def script(pid: int = SCRIPT) -> Holder:
    return holder(f"pid-{pid}", kind=HolderKind.PROCESS, pid=pid)


def granted(broker: Broker, spec: str, who: Holder, **options: float) -> Lease:
    request = broker.submit(spec, who, **options)  # type: ignore[arg-type]
    assert request.state is RequestState.GRANTED, request.reason
    return broker.lease(request.lease_id)


# -- the living ------------------------------------------------------------------------

SHIFTS = {
    "server and kernel are stopped": [PAUSE],
    "a laptop sleeps for a weekend": [200_000.0],
    "the clock is set ahead": [1e6],
    "the clock is set back": [-1e6],
    "the clock is set back and ahead again": [-1e6, 2e6],
}


@pytest.mark.parametrize("shifts", SHIFTS.values(), ids=SHIFTS.keys())
def test_no_pause_and_no_clock_takes_a_lease_from_a_living_holder(
    build: Build, clock: ManualClock, shifts: list[float]
) -> None:
    broker = build()
    other = build()
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    waiting = other.submit("1/2", script())
    for seconds in shifts:
        clock.advance(seconds)
        # Whoever comes first after the pause has not been able to renew it before.
        other.cycle()
        assert other.request(waiting.id).state is RequestState.QUEUED
        with pytest.raises(AcquireTimeout):
            other.submit("1/2", script(SERVER), patience_seconds=0)
        broker.maintain()
    kept = broker.lease(lease.id)
    assert kept.is_live
    assert kept.is_renewed(clock())
    broker.release(lease.id, lease.token)
    assert other.request(waiting.id).state is RequestState.GRANTED, "they are served"


@pytest.mark.parametrize("shifts", SHIFTS.values(), ids=SHIFTS.keys())
def test_after_any_pause_the_dead_hold_nothing(
    build: Build, clock: ManualClock, living: set[int], shifts: list[float]
) -> None:
    broker = build()
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    broker.cycle()
    living.discard(KERNEL)
    for seconds in shifts:
        clock.advance(seconds)
        broker.maintain()
    clock.advance(1)
    broker.maintain()
    assert broker.lease(lease.id).outcome is Outcome.ABANDONED


def test_only_the_server_was_stopped_while_a_cell_computes(
    build: Build, clock: ManualClock
) -> None:
    lease = granted(build(), "1", holder("kernel-1", pid=KERNEL))
    other = build()
    clock.advance(PAUSE)
    with pytest.raises(AcquireTimeout):
        other.submit("1", script(), patience_seconds=0)
    assert other.lease(lease.id).is_live
    other.maintain()
    assert other.lease(lease.id).is_renewed(clock()), "any broker of the host keeps it"


def test_an_end_that_its_user_asked_for_comes_though_the_holder_lives(
    build: Build, clock: ManualClock
) -> None:
    broker = build()
    lease = granted(
        broker, "1", holder("kernel-1", pid=KERNEL), lease_seconds=PAUSE - 1
    )
    clock.advance(PAUSE)
    ended = broker.lease(lease.id)
    assert ended.outcome is Outcome.EXPIRED
    assert ended.ended_at == lease.ends_at


def test_a_driver_that_hangs_for_longer_than_the_ttl_costs_no_lease(
    clock: ManualClock, living: set[int]
) -> None:
    class Hanging(SimulatedProvider):
        """Each of its calls takes 72 s."""

        def discover(self, host: str) -> tuple:  # type: ignore[type-arg]
            clock.advance(72)
            return super().discover(host)

    broker = Broker(
        MemoryLedger(),
        [Hanging("1xH100-80GB")],
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: pid in living,
    )
    lease = granted(broker, "1/2", holder("kernel-1", pid=KERNEL))
    for _ in range(3):
        broker.maintain()
    assert broker.lease(lease.id).is_live


def test_a_ledger_that_fails_for_longer_than_the_ttl_costs_no_lease(
    clock: ManualClock, living: set[int]
) -> None:
    ledger = FailingLedger()
    broker = Broker(
        ledger,
        [SimulatedProvider("1xH100-80GB")],
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: pid in living,
    )
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    ledger.is_down = True
    for _ in range(8):
        clock.advance(10)
        with pytest.raises(LedgerUnavailable):
            broker.maintain()
    ledger.is_down = False
    broker.submit("1/2", script())
    assert broker.lease(lease.id).is_live


# -- those whom nobody can see ---------------------------------------------------------


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Processes that cannot be seen from here."""
    pids: set[int] = set()
    look = HolderProcesses.liveness

    def liveness(self: HolderProcesses, who: Holder) -> Liveness:
        return Liveness.UNKNOWN if who.pid in pids else look(self, who)

    monkeypatch.setattr(HolderProcesses, "liveness", liveness)
    return pids


def test_a_lease_that_nobody_can_vouch_for_lapses_and_says_so(
    build: Build, clock: ManualClock, unseen: set[int]
) -> None:
    broker = build()
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    unseen.add(KERNEL)
    for _ in range(12):
        clock.advance(5)
        broker.maintain()
    assert broker.lease(lease.id).is_live
    for _ in range(4):
        clock.advance(5)
        broker.maintain()
    ended = broker.lease(lease.id)
    assert (ended.outcome, ended.ended_at) == (Outcome.LAPSED, lease.expires_at)
    (event,) = [e for e in broker.events() if e.kind.value == "LeaseLapsed"]
    assert event.detail.startswith("nobody kept it")


def test_after_a_pause_the_unseen_have_time_to_be_renewed(
    build: Build, clock: ManualClock, unseen: set[int]
) -> None:
    broker = build()
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    unseen.add(KERNEL)
    for pause in (PAUSE, PAUSE, PAUSE):
        clock.advance(pause)
        broker.maintain()
        assert broker.lease(lease.id).is_live, "nobody has looked all the time"
    clock.advance(5)
    broker.renew(lease.id, lease.token)
    broker.maintain()
    assert broker.lease(lease.id).is_live


def test_a_lease_of_no_process_lapses_at_its_time(
    build: Build, clock: ManualClock
) -> None:
    broker = build()
    lease = granted(broker, "1", holder("kernel-1"))
    clock.advance(59)
    broker.cycle()
    assert broker.lease(lease.id).is_live
    clock.advance(1)
    broker.cycle()
    assert broker.lease(lease.id).outcome is Outcome.LAPSED


# -- releases that nobody finishes -----------------------------------------------------


def test_a_release_that_nobody_finishes_ends_at_its_time(
    build: Build, ledger: Ledger, clock: ManualClock
) -> None:
    broker = build()
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, clock())
    clock.advance(59)
    broker.maintain()
    assert broker.lease(lease.id).state is LeaseState.RELEASING
    clock.advance(1)
    broker.maintain()
    assert broker.lease(lease.id).outcome is Outcome.RELEASED


def test_a_slow_teardown_is_not_overtaken_by_the_next_holder(
    clock: ManualClock, living: set[int]
) -> None:
    class Slow(SimulatedProvider):
        """Closing its devices takes 100 s, in which the host is maintained."""

        def unprepare(self, lease: Lease) -> None:
            for _ in range(10):
                clock.advance(10)
                broker.maintain()
            assert broker.lease(lease.id).state is LeaseState.RELEASING

    broker = Broker(
        MemoryLedger(),
        [Slow("1xH100-80GB")],
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: pid in living,
    )
    lease = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    waiting = broker.submit("1", script())
    assert broker.release(lease.id, lease.token).outcome is Outcome.RELEASED
    assert broker.request(waiting.id).state is RequestState.GRANTED


# -- the dead --------------------------------------------------------------------------


def test_the_requests_of_the_dead_are_out_before_anybody_is_served(
    build: Build, living: set[int]
) -> None:
    broker = build()
    first = granted(broker, "1", holder("kernel-1", pid=KERNEL))
    dead = broker.submit("1", script())
    living.discard(SCRIPT)
    broker.release(first.id, first.token)
    assert broker.request(dead.id).state is RequestState.REJECTED
    assert broker.leases() == ()


def test_a_living_request_that_does_not_wait_is_not_behind_a_dead_one(
    build: Build, living: set[int]
) -> None:
    broker = build()
    granted(broker, "3/4", holder("kernel-1", pid=KERNEL))
    broker.submit("1", script())
    living.discard(SCRIPT)
    fresh = build()
    request = fresh.submit("1/4", script(SERVER), patience_seconds=0)
    assert request.state is RequestState.GRANTED


def test_what_a_dead_script_held_is_free_at_once(
    build: Build, living: set[int]
) -> None:
    lease = granted(build(), "1", script())
    living.discard(SCRIPT)
    fresh = build()
    granted(fresh, "1", script(SERVER), patience_seconds=0)
    assert fresh.lease(lease.id).outcome is Outcome.ABANDONED


def test_a_kernel_long_dead_holds_nothing_against_a_process_that_comes_by(
    build: Build, clock: ManualClock, living: set[int]
) -> None:
    lease = granted(build(), "1", holder("kernel-1", pid=KERNEL))
    living.discard(KERNEL)
    clock.advance(60)
    fresh = build()
    granted(fresh, "1", script(), patience_seconds=0)
    assert fresh.lease(lease.id).outcome is Outcome.ABANDONED


def test_the_dead_are_shown_to_nobody(
    build: Build, clock: ManualClock, living: set[int]
) -> None:
    broker = build()
    scripts = granted(broker, "1/4", script())
    kernels = granted(broker, "1/4", holder("kernel-1", pid=KERNEL))
    kept = granted(broker, "1/4", holder("kernel-2", pid=SERVER))
    living -= {SCRIPT, KERNEL}
    fresh = build()
    service = Service(fresh, groups=lambda user: frozenset())
    caller = Caller(user="ann", uid=1, pid=SERVER, kernel_id="kernel-1")

    def shown(verb: str, **payload: bool) -> list[str]:
        answer = service.call(verb, payload, caller)
        return [lease["id"] for lease in answer["leases"] if not lease["outcome"]]

    assert shown("leases") == shown("leases", all=True) == [kept.id]
    assert shown("mine") == []
    assert list(service.call("usage", {}, caller)["leases"]) == [kept.id]
    (gpu,) = [
        device
        for device in service.call("host", {}, caller)["devices"]
        if device["kind"] == "gpu"
    ]
    assert gpu["free_fraction"] == "3/4"
    assert [lease.id for lease in service.figures(caller).leases] == [kept.id]
    assert fresh.lease(scripts.id).outcome is Outcome.ABANDONED
    assert fresh.lease(kernels.id).is_live, "its server may be about to take it over"


def test_the_dead_are_not_shown_where_nothing_can_be_written(
    clock: ManualClock, living: set[int]
) -> None:
    class ReadOnly(FailingLedger):
        """May be read while it is down."""

        def _reading(self):  # type: ignore[no-untyped-def]
            return MemoryLedger._reading(self)

    ledger = ReadOnly()
    broker = Broker(
        ledger,
        [SimulatedProvider("1xH100-80GB")],
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: pid in living,
    )
    lease = granted(broker, "1/4", script())
    living.discard(SCRIPT)
    ledger.is_down = True
    assert broker.current_leases() == ()
    (shown,) = broker.current_leases(live=False)
    assert (shown.id, shown.outcome) == (lease.id, Outcome.ABANDONED)
    assert broker.lease(lease.id).is_live
