"""Real processes of other users on a GPU that they have no lease of."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.stray_record import StrayRecord
from jupyter_aistack.broker.strays import StrayOptions
from jupyter_aistack.core.model.device import ProcessUse
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.stray import (
    Exemption,
    Stray,
    StrayAction,
    StrayPolicy,
)
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.system.pid_namespace import PidNamespace
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.bare_provider import BareProvider
from tests.fakes.user_processes import BOB, EVE, NEEDS_ROOT, STAYS, Processes
from tests.fakes.user_processes import processes as processes

TERMINATE = StrayPolicy(
    action=StrayAction.TERMINATE, grace_seconds=600.0, exempt=frozenset({f"uid-{EVE}"})
)
Build = Callable[..., Broker]
AS_ITSELF_OR_FOR_A_HUB = pytest.mark.parametrize(
    "user", [f"uid-{BOB}", "user-of-a-hub"]
)
"""Whose a lease is, that a process of Bob's has."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gpus() -> BareProvider:
    return BareProvider(0, 1)


@pytest.fixture
def build(gpus: BareProvider, clock: ManualClock, tmp_path: Path) -> Iterator[Build]:
    """Builds brokers of the whole host over one ledger, the later after the earlier."""
    ledger = MemoryLedger()
    made = []

    def broker(policy: StrayPolicy = TERMINATE, **options: object) -> Broker:
        strays = StrayOptions(
            policy=policy,
            record=StrayRecord(tmp_path / "strays.json"),
            seconds=clock,
            **{"serves_host": True, **options},  # type: ignore[arg-type]
        )
        namespace = PidNamespace(is_initial=lambda: True)
        made.append(
            Broker(
                ledger,
                [gpus],
                host="testbox",
                clock=clock,
                ttl_seconds=1e6,
                strays=strays,
                pid_namespace=namespace,
            )
        )
        return made[-1]

    yield broker
    for each in made:
        each.devices.close()


def listed(gpus: BareProvider, *pids: int, memory_bytes: int | None = 3 * GIB) -> None:
    """The processes that the driver lists on each GPU."""
    gpus.processes = tuple(
        ProcessUse(pid=pid, memory_bytes=memory_bytes, name="python") for pid in pids
    )


def turn(broker: Broker, clock: ManualClock, seconds: float = 3.0) -> None:
    clock.advance(seconds)
    broker.maintain()


def on_first(broker: Broker) -> list[Stray]:
    return [stray for stray in broker.strays.current() if stray.device_id == "GPU-0"]


def kinds(broker: Broker) -> list[EventKind]:
    wanted = (EventKind.STRAY_SEEN, EventKind.STRAY_ENDED)
    events = [event for event in broker.events() if event.device_id == "GPU-0"]
    return [event.kind for event in events if event.kind in wanted]


@NEEDS_ROOT
def test_a_stray_is_shown_as_what_it_is(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    broker = build(StrayPolicy())
    process = processes.start(BOB, AISTACK_KERNEL="kernel-7")
    listed(gpus, process.pid, memory_bytes=None)
    [stray] = on_first(broker)
    assert (stray.pid, stray.user, stray.command) == (
        process.pid,
        f"uid-{BOB}",
        "sleep 600",
    )
    assert (stray.program, stray.kernel_id) == ("sleep", "kernel-7")
    assert (stray.memory_bytes, stray.ends_at) == (None, None)
    assert stray.since is not None
    assert 0 <= clock() - stray.since < 600


@NEEDS_ROOT
def test_it_is_asked_to_end_after_its_grace_period_and_not_before(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    broker = build()
    process = processes.start(BOB)
    listed(gpus, process.pid)
    turn(broker, clock)
    assert kinds(broker) == []
    turn(broker, clock, 6)
    assert kinds(broker) == [EventKind.STRAY_SEEN]
    turn(broker, clock, 580)
    assert process.poll() is None
    assert on_first(broker)[0].ends_at == pytest.approx(clock() + 14)
    turn(broker, clock, 14)
    assert process.wait(60) == -signal.SIGTERM
    assert kinds(broker) == [EventKind.STRAY_SEEN, EventKind.STRAY_ENDED]


@NEEDS_ROOT
def test_what_does_not_end_is_killed_also_by_the_next_broker(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    process = processes.start(BOB, STAYS)
    listed(gpus, process.pid)
    first = build()
    turn(first, clock)
    turn(first, clock, 590)
    later = build()
    turn(later, clock, 10)
    assert kinds(later) == [EventKind.STRAY_SEEN, EventKind.STRAY_ENDED]
    turn(later, clock, 9)
    assert process.poll() is None
    last = build()
    turn(last, clock, 1)
    assert process.wait(60) == -signal.SIGKILL


@NEEDS_ROOT
def test_root_s_a_listed_user_s_and_an_unknown_process_are_left_alone(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    broker = build()
    roots = processes.start(0)
    listed_user = processes.start(EVE)
    ended = processes.start(BOB)
    ended.kill()
    ended.wait()
    listed(gpus, roots.pid, listed_user.pid, ended.pid)
    turn(broker, clock)
    turn(broker, clock, 1000)
    turn(broker, clock, 1000)
    exemptions = {stray.pid: stray.exemption for stray in on_first(broker)}
    assert exemptions == {
        roots.pid: Exemption.ROOT,
        listed_user.pid: Exemption.LISTED,
        ended.pid: Exemption.UNKNOWN,
    }
    assert (roots.poll(), listed_user.poll()) == (None, None)


@NEEDS_ROOT
@AS_ITSELF_OR_FOR_A_HUB
def test_a_process_with_a_lease_is_no_stray_there_and_never_ended_elsewhere(
    build: Build,
    gpus: BareProvider,
    clock: ManualClock,
    processes: Processes,
    user: str,
) -> None:
    broker = build()
    process = processes.start(BOB)
    request = broker.submit("1", holder("kernel-1", user=user, pid=process.pid))
    [slice_] = broker.lease(request.lease_id).slices
    listed(gpus, process.pid)
    turn(broker, clock)
    turn(broker, clock, 1000)
    turn(broker, clock, 1000)
    [stray] = broker.strays.current()
    assert stray.device_id != slice_.device_id
    assert stray.exemption is Exemption.HOLDER
    assert process.poll() is None


@NEEDS_ROOT
@AS_ITSELF_OR_FOR_A_HUB
def test_a_user_s_lease_whose_processes_cannot_be_seen_may_be_any_of_the_user_s(
    build: Build,
    gpus: BareProvider,
    clock: ManualClock,
    processes: Processes,
    user: str,
) -> None:
    broker = build()
    process = processes.start(BOB)
    # It is to start: nobody knows its process yet.
    request = broker.submit("1", holder("kernel-1", user=user, pid=None))
    [slice_] = broker.lease(request.lease_id).slices
    listed(gpus, process.pid)
    clock.advance(3)
    strays = {stray.device_id: stray for stray in broker.strays.current()}
    assert strays[slice_.device_id].exemption is Exemption.UNKNOWN


@NEEDS_ROOT
def test_who_is_granted_a_lease_in_the_grace_period_is_no_stray_any_more(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    broker = build()
    process = processes.start(BOB)
    listed(gpus, process.pid, memory_bytes=0)
    turn(broker, clock)
    turn(broker, clock, 590)
    for name in ("kernel-1", "kernel-2"):
        broker.submit("1", holder(name, user=f"uid-{BOB}", pid=process.pid))
    turn(broker, clock, 20)
    turn(broker, clock, 20)
    assert broker.strays.current() == ()
    assert process.poll() is None


@NEEDS_ROOT
@pytest.mark.parametrize("options", [{"serves_host": False}])
def test_a_broker_of_one_user_ends_no_other_user_s_process(
    build: Build,
    gpus: BareProvider,
    clock: ManualClock,
    processes: Processes,
    options: dict[str, object],
) -> None:
    broker = build(TERMINATE, **options)
    process = processes.start(BOB)
    listed(gpus, process.pid)
    turn(broker, clock)
    turn(broker, clock, 1000)
    turn(broker, clock, 1000)
    assert on_first(broker)[0].exemption is Exemption.OUT_OF_REACH
    assert process.poll() is None


def test_the_broker_itself_is_left_alone(build: Build, gpus: BareProvider) -> None:
    listed(gpus, os.getpid())
    [stray] = on_first(build())
    assert stray.exemption is Exemption.BROKER


def test_ids_that_may_be_another_namespace_s_are_nobody_s(
    gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    listed(gpus, processes.start(os.getuid()).pid)
    namespace = PidNamespace(is_initial=lambda: False)
    broker = Broker(
        MemoryLedger(), [gpus], host="testbox", clock=clock, pid_namespace=namespace
    )
    exemptions = {stray.exemption for stray in broker.strays.current()}
    assert exemptions == {Exemption.UNKNOWN}


@NEEDS_ROOT
def test_others_see_a_program_its_user_the_command_and_strangers_no_name(
    build: Build, gpus: BareProvider, clock: ManualClock, processes: Processes
) -> None:
    broker = build()
    process = processes.start(BOB)
    listed(gpus, process.pid)
    turn(broker, clock)

    def seen(user: str, *, show_names: bool) -> tuple[object, ...]:
        service = Service(broker, show_names=show_names)
        answer = service.call("host", {}, Caller(user=user, uid=1))
        stray = answer["strays"][0]
        names = ("user", "pid", "command", "is_own")
        return tuple(stray[name] for name in names)

    bob = f"uid-{BOB}"
    own = (bob, process.pid, "sleep 600", True)
    assert seen(bob, show_names=False) == own
    assert seen("ann", show_names=True) == (bob, process.pid, "sleep", False)
    assert seen("ann", show_names=False) == ("someone", None, "", False)
