"""The watchdog under a broker: scripted figures of a device, real processes, and a
clock moved by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker import memory_watchdog
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.memory_limits import UNMEASURED, MemoryAction
from jupyter_aistack.core.model.condition import (
    ConditionKind,
    conditions_text,
    new_condition,
)
from jupyter_aistack.core.model.device import Enforcement, Fault, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.system.process_origin import leases_named_by
from jupyter_aistack.system.processes import program_of
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.scripted import Lists

SELF = os.getpid()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def broker(lists: Lists, clock: ManualClock) -> Iterator[Broker]:
    made = Broker(MemoryLedger(), [lists], host="testbox", clock=clock, ttl_seconds=1e6)
    yield made
    made.close()


def lease_of(
    broker: Broker,
    spec: str = "1/2",
    name: str = "kernel-1",
    up_to: str = "",
    **fields: Any,
) -> Lease:
    who = holder(name, **{"pid": SELF, "label": "train.ipynb", **fields})
    request = broker.submit(spec, who, up_to=up_to)
    return broker.lease(request.lease_id)


@pytest.fixture
def look(broker: Broker, clock: ManualClock, lists: Lists) -> Any:
    """Some seconds later, with what processes hold by then in GiB: ``look({4711:
    30})``.
    """

    def after(held: Mapping[int, float | None] | None, seconds: float = 2.0) -> None:
        measured = (
            None
            if held is None
            else {p: None if gib is None else int(gib * GIB) for p, gib in held.items()}
        )
        lists.held = measured
        clock.advance(seconds)
        broker.maintain()

    return after


@pytest.fixture
def process() -> Iterator[Any]:
    """Starts processes that wait: ``process(AISTACK_LEASE="l-1")``."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> int:
        code = "import sys; print(flush=True); sys.stdin.read()"
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", code],
            env={**os.environ, **environment},
            **pipes,
        )
        started.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child.pid

    yield start
    for child in started:
        child.communicate()


def kinds(broker: Broker) -> list[str]:
    return [
        event.kind.value for event in broker.events() if "Memory" in event.kind.value
    ]


def test_near_and_over_are_said_on_the_lease_and_as_events_and_taken_back(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    for gib, words in (
        (37, "near its memory: "),
        (38.2, "near"),
        (42, "over its memory: "),
        (43, "over"),
        (20, ""),
    ):
        look({SELF: gib})
        note = conditions_text(broker.lease(lease.id).conditions)
        assert note.startswith(words)
        assert bool(note) is bool(words)
    assert kinds(broker) == ["LeaseNearMemory", "LeaseOverMemory"]
    detail = next(
        event.detail
        for event in broker.events()
        if event.kind.value == "LeaseOverMemory"
    )
    name = f"{program_of(SELF)} {SELF}"
    assert f"{name} of train.ipynb holds 42.0 GiB of 40.0 GiB" in detail


def test_the_process_that_broke_the_bound_is_handed_over_once(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    look({SELF: 42})
    (breach,) = broker.memory.take_breaches()
    assert (breach.lease.id, breach.process.pid, breach.is_root) == (
        lease.id,
        SELF,
        True,
    )
    assert breach.action is MemoryAction.INTERRUPT
    look({SELF: 44})
    assert broker.memory.take_breaches() == ()
    broker.memory.done(breach.lease, "its cell was interrupted")
    assert conditions_text(broker.lease(lease.id).conditions).endswith(
        "; its cell was interrupted"
    )
    look({SELF: 44})
    assert conditions_text(broker.lease(lease.id).conditions).endswith(
        "; its cell was interrupted"
    )


def test_a_breach_that_nothing_could_be_done_about_is_handed_over_again(
    broker: Broker, look: Any
) -> None:
    lease_of(broker)
    for _ in range(3):
        look({SELF: 42})
        (breach,) = broker.memory.take_breaches()
        broker.memory.not_yet(breach.lease)
    assert kinds(broker) == ["LeaseOverMemory"], "and is said once"


def test_a_breach_that_nobody_has_taken_yet_is_not_lost_in_the_next_look(
    broker: Broker, look: Any
) -> None:
    lease_of(broker)
    look({SELF: 42})
    look({SELF: 42})
    assert len(broker.memory.take_breaches()) == 1


def test_a_breach_of_a_lease_that_has_ended_is_nobodys_business(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    look({SELF: 42})
    broker.release(lease.id, lease.token)
    look({SELF: 42})
    assert broker.memory.take_breaches() == ()


def test_the_whole_tree_counts_and_a_child_goes_before_its_kernel(
    broker: Broker, look: Any, process: Any
) -> None:
    lease_of(broker)
    child = process()
    look({SELF: 30, child: 12, 1: 60})
    (breach,) = broker.memory.take_breaches()
    assert (breach.process.pid, breach.is_root) == (child, False)
    assert breach.started_at is not None


def test_a_process_outside_the_tree_counts_where_its_environment_names_the_lease(
    broker: Broker, look: Any, process: Any, clock: ManualClock
) -> None:
    root = process()
    lease = lease_of(broker, pid=root)
    stray, stranger = (
        process(AISTACK_LEASE=f"l-other,{lease.id}"),
        process(AISTACK_LEASE="l-other"),
    )
    look({root: 1, stray: 45, stranger: 60})
    (breach,) = broker.memory.take_breaches()
    assert breach.process.pid == stray
    assert broker.memory.orphan_processes(lease.id) == {stray}
    clock.advance(2.0)
    assert broker.usage()[0][lease.id].memory_bytes == 2, (
        "it is one of the lease's in what is shown, too"
    )


def test_a_process_of_another_user_cannot_make_itself_part_of_a_lease(
    broker: Broker, look: Any, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = process()
    lease = lease_of(broker, pid=root)
    named = process(AISTACK_LEASE=lease.id)
    monkeypatch.setattr(memory_watchdog, "uid_of", {root: 1000, named: 1001}.get)
    look({root: 1, named: 60})
    assert (
        broker.memory.take_breaches(),
        broker.memory.orphan_processes(lease.id),
    ) == ((), frozenset())


def test_an_environment_that_cannot_be_read_names_nothing() -> None:
    assert leases_named_by(2**22) == frozenset()


def test_where_a_control_group_holds_a_lease_its_group_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = {
        SELF: b"0::/user",
        11: b"0::/lease-1",
        12: b"0::/lease-1",
        13: b"0::/user",
    }
    monkeypatch.setattr(memory_watchdog, "cgroup_of", lambda pid: groups.get(pid, b""))
    slice_ = Slice(
        device_id="GPU-0",
        kind=SliceKind.SHARE,
        fraction=Fraction(1, 2),
        memory_bytes=1,
        uuid="GPU-0",
    )

    def orphan_processes(root: int, enforced_by: Enforcement) -> frozenset[int]:
        held = Lease(
            id="l-1", token=1, request_id="r-1", spec=None, holder=holder(pid=root), slices=(slice_,),  # type: ignore[arg-type]
            granted_at=0, expires_at=1, enforced_by=enforced_by,
        )  # fmt: skip
        return memory_watchdog.find_orphan_processes(
            [held], {"l-1": frozenset({root})}, [root, 12, 13]
        )["l-1"]

    assert orphan_processes(11, Enforcement.L3) == {12}
    assert orphan_processes(11, Enforcement.L1) == frozenset()
    assert orphan_processes(SELF, Enforcement.L3) == frozenset(), (
        "the server's own group holds everybody"
    )


def test_two_leases_of_one_kernel_have_one_bound(broker: Broker, look: Any) -> None:
    both = [lease_of(broker, "1/4"), lease_of(broker, "1/4")]
    look({SELF: 35})
    assert [conditions_text(broker.lease(lease.id).conditions) for lease in both] == [
        "",
        "",
    ]
    look({SELF: 42})
    assert len(broker.memory.take_breaches()) == 1


def test_neighbours_are_left_alone(broker: Broker, look: Any, process: Any) -> None:
    mine, theirs = process(), process()
    lease_of(broker, "1/2", pid=mine)
    neighbour = lease_of(broker, "1/4", "kernel-2", pid=theirs)
    look({mine: 60, theirs: 19})
    assert [breach.process.pid for breach in broker.memory.take_breaches()] == [mine]
    assert conditions_text(broker.lease(neighbour.id).conditions).startswith(
        "near its memory"
    )


@pytest.mark.parametrize("held", [None, {SELF: None}], ids=["no list", "no figure"])
def test_what_cannot_be_read_is_said_and_is_not_zero(
    broker: Broker, look: Any, held: Any
) -> None:
    lease = lease_of(broker)
    look({SELF: 42})
    broker.memory.take_breaches()
    look(held)
    assert (
        conditions_text(broker.lease(lease.id).conditions)
        == f"memory unknown: {UNMEASURED}"
    )
    look({SELF: 42})
    assert conditions_text(broker.lease(lease.id).conditions).startswith(
        "over its memory"
    )
    assert broker.memory.take_breaches() == ()


def test_a_driver_that_is_gone_while_it_is_watched_does_not_end_the_watch(
    broker: Broker, look: Any, lists: Lists
) -> None:
    lease = lease_of(broker)
    lists.failures["sample"] = ProviderError("the NVIDIA driver closed the connection")
    look({})
    assert (
        conditions_text(broker.lease(lease.id).conditions)
        == f"memory unknown: {UNMEASURED}"
    )
    lists.failures.clear()
    look({SELF: 1})
    assert conditions_text(broker.lease(lease.id).conditions) == ""


def test_a_clock_that_is_set_back_does_not_stop_the_watch(
    broker: Broker, look: Any, clock: ManualClock
) -> None:
    lease = lease_of(broker)
    look({SELF: 1})
    look({SELF: 42}, seconds=-3600)
    assert conditions_text(broker.lease(lease.id).conditions).startswith(
        "over its memory"
    )


def test_one_list_is_read_every_turn_and_none_while_no_gpu_is_leased(
    broker: Broker, look: Any, lists: Lists, clock: ManualClock
) -> None:
    look({})
    assert lists.asked == 0
    lease_of(broker, "1/4")
    lease_of(broker, "1/4", "kernel-2")
    for _ in range(3):
        look({})
        broker.maintain()
    assert lists.asked == 3


def test_a_worker_whose_process_is_unknown_yet_is_not_taken_for_unmeasured(
    broker: Broker, look: Any
) -> None:
    worker = Holder(
        kind=HolderKind.WORKER,
        id="w-0",
        user="ann",
        host="testbox",
        pid=SELF,
        parent="kernel-1",
    )
    request = broker.submit("1/4", worker)
    look({SELF: 60})
    assert conditions_text(broker.lease(request.lease_id).conditions) == ""


def kinds_on(broker: Broker, lease: Lease) -> list[str]:
    """The kinds of a lease's conditions, the gravest first."""
    return [each.kind.value for each in broker.lease(lease.id).conditions]


def test_what_is_known_of_memory_stands_beside_anything_else(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    seen = new_condition(ConditionKind.NOT_ENFORCED, "whatever", 1.0)
    broker.activate(lease.id, lease.token, verified=False, condition=seen)
    shown = []
    for gib in (38, 42, 43, 20):
        look({SELF: gib})
        shown.append(kinds_on(broker, lease))
    assert shown == [
        ["NotEnforced", "MemoryPressure"],
        ["MemoryExceeded", "NotEnforced"],
        ["MemoryExceeded", "NotEnforced"],
        ["NotEnforced"],
    ]
    assert kinds(broker) == ["LeaseNearMemory", "LeaseOverMemory"]


def test_that_the_gpu_failed_stays_whatever_is_held(
    broker: Broker, look: Any, lists: Lists
) -> None:
    lease = lease_of(broker)
    lists.broken = (Fault(device_id="GPU-0", pid=SELF, message=""),)
    for _ in range(2):
        look({SELF: 42})
    assert kinds_on(broker, lease) == ["DeviceFault", "MemoryExceeded"]


def test_a_warning_goes_before_a_check_that_told_nothing(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    blind = new_condition(ConditionKind.NOT_VERIFIED, "CUDA does not answer", 1.0)
    broker.activate(lease.id, lease.token, verified=None, condition=blind)
    look({SELF: 38})
    assert kinds_on(broker, lease) == ["MemoryPressure", "NotVerified"]


def test_a_check_leaves_what_is_known_of_memory_alone(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker)
    look({SELF: 38})
    broker.activate(lease.id, lease.token, verified=True)
    assert kinds_on(broker, lease) == ["MemoryPressure"]


def test_a_second_broker_of_the_host_says_nothing_twice(
    broker: Broker, look: Any, lists: Lists
) -> None:
    lease_of(broker)
    other = Broker(
        broker.ledger, [lists], host="testbox", clock=broker.clock, ttl_seconds=1e6
    )
    look({SELF: 42})
    other.maintain()
    look({SELF: 43})
    other.maintain()
    assert kinds(broker) == ["LeaseOverMemory"]


def test_the_program_is_named_and_its_arguments_are_not() -> None:
    assert program_of(SELF) == Path("/proc/self/comm").read_text().strip()
    assert program_of(2**22) == ""


# -- a ceiling -------------------------------------------------------------------------


def condition_kinds(broker: Broker, lease: Lease) -> list[str]:
    return [each.kind.value for each in broker.lease(lease.id).conditions]


def test_a_lease_may_hold_what_nobody_else_has_leased(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker, "1/4", up_to="1/1")
    look({SELF: 70})
    assert condition_kinds(broker, lease) == []
    look({SELF: 75})
    assert condition_kinds(broker, lease) == ["MemoryPressure"]


def test_what_it_holds_above_a_lowered_limit_is_left_alone_for_a_minute(
    broker: Broker, look: Any
) -> None:
    lease = lease_of(broker, "1/4", up_to="1/1")
    look({SELF: 70})
    other = lease_of(broker, "1/2", name="kernel-2", pid=os.getppid())
    assert other.is_live  # it does not wait for what the first holds

    look({SELF: 70})
    (condition,) = broker.lease(lease.id).conditions
    assert condition.kind is ConditionKind.LIMIT_LOWERED
    assert "holds 70.0 GiB of 40.0 GiB" in condition.message
    assert broker.memory.take_breaches() == ()
    assert kinds(broker) == ["LeaseNearMemory"]

    look({SELF: 70}, seconds=60.0)
    assert condition_kinds(broker, lease) == ["MemoryExceeded"]
    (breach,) = broker.memory.take_breaches()
    assert breach.lease.id == lease.id

    # Within what it may use, above what it was granted: nothing is done.
    look({SELF: 30})
    assert condition_kinds(broker, lease) == []
    assert broker.memory.take_breaches() == ()
