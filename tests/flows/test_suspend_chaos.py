"""Twelve kernels, two GPUs, two servers, and all that can go wrong: nothing is lost,
and nobody waits for ever.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import RequestedAction, StatePhase
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system import processes
from jupyter_aistack.testing import CAN_SUSPEND, ManualClock
from tests.fakes.suspend_host import NO_FAULTS, FakeGPUs, Machine

KERNELS, SERVERS, SECONDS, LONGEST = 12, 2, 600, 3600
POLICY = Policy(queues=(Queue(name="default", suspend=True, idle=None),))
SUSPEND = SuspendPolicy(
    warm_seconds=10.0, hard_seconds=120.0, retry_seconds=5.0, longest_retry_seconds=30.0
)


def machine_of(
    seed: int, open_ledger: Callable[[], Ledger], host_memory: int
) -> Machine:
    """A host with as many brokers as servers, all over one ledger."""
    machine = Machine(random.Random(seed), ManualClock())

    def free() -> int:
        parked = sum(each for _, each in machine.vaults.values())
        return host_memory - parked

    for _ in range(SERVERS):
        broker = Broker(
            open_ledger(),
            [FakeGPUs(machine)],
            policy=POLICY,
            host="testbox",
            clock=machine.clock,
            is_alive=machine.is_alive,
            suspend=SUSPEND,
            capability=CAN_SUSPEND,
            host_memory=free,
        )
        machine.brokers.append(broker)
    return machine


def live(machine: Machine) -> None:
    """Ten minutes in which all may happen, and then as long as it takes without faults
    until nothing waits.
    """
    for number in range(KERNELS):
        machine.start(f"k{number}")
    for _ in range(SECONDS):
        machine.second()
    machine.faults = NO_FAULTS
    for lease in machine.brokers[0].leases():
        if lease.residence is not None:
            machine.brokers[0].set_pinned(lease.id, False)


def settle(machine: Machine, is_over: Callable[[], bool]) -> None:
    """Let time pass without faults until that is so."""
    for _ in range(LONGEST):
        if is_over():
            return
        machine.second(is_used=False)
    raise AssertionError(f"somebody still waits after {LONGEST} s")


def nobody_waits(machine: Machine) -> bool:
    """Whether no cell runs or waits, and nothing moves."""
    living = [kernel for kernel in machine.kernels.values() if kernel.is_alive]
    return not machine.brokers[0].transfers() and not any(
        kernel.waits or kernel.is_lost for kernel in living
    )


def come_back(machine: Machine) -> None:
    """Every kernel that lives and has a lease gets its state back, and it is what it
    was.
    """
    for kernel in [kernel for kernel in machine.kernels.values() if kernel.is_alive]:
        lease = machine.lease_of(kernel)
        if lease is not None:
            broker, lease_id = machine.brokers[kernel.server], lease.id
            broker.request_action(lease_id, RequestedAction.RESUME)
            settle(
                machine,
                lambda broker=broker, lease_id=lease_id: is_resident(broker, lease_id),
            )  # type: ignore[misc]
            assert kernel.number == kernel.expected


def is_resident(broker: Broker, lease_id: str) -> bool:
    home = broker.lease(lease_id).residence
    return home is not None and home.phase is StatePhase.RESIDENT


@pytest.fixture(autouse=True)
def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids decide between equals: they are the same each time a seed is run."""
    draws = random.Random(0)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=draws.getrandbits(128)))


@pytest.fixture(autouse=True)
def no_process_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the kernels is a process of this machine: looking through all of them in
    each of thousands of turns would take a third of the time.
    """
    monkeypatch.setattr(processes, "parents", dict)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_and_nobody_waits_for_ever(seed: int) -> None:
    ledger = MemoryLedger()
    machine = machine_of(seed, lambda: ledger, 2000 * GIB)
    live(machine)
    settle(machine, lambda: nobody_waits(machine) and not machine.brokers[0].queue())
    come_back(machine)
    check(machine)


@pytest.mark.parametrize("seed", range(4))
def test_where_the_host_has_little_memory_those_who_were_let_in_lose_nothing_either(
    seed: int,
) -> None:
    ledger = MemoryLedger()
    machine = machine_of(seed, lambda: ledger, 300 * GIB)
    live(machine)
    settle(machine, lambda: nobody_waits(machine))
    come_back(machine)
    check(machine)


def test_nothing_is_lost_over_one_database(tmp_path: Path) -> None:
    machine = machine_of(
        99, lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite"), 2000 * GIB
    )
    live(machine)
    settle(machine, lambda: nobody_waits(machine) and not machine.brokers[0].queue())
    come_back(machine)
    check(machine)


def check(machine: Machine) -> None:
    """What was lost was lost by a fault that was made, and said so; and the faults were
    really there.
    """
    told = [
        event
        for event in machine.brokers[0].events(limit=10**6)
        if event.kind is EventKind.LEASE_STATE_LOST
    ]
    assert len(told) == machine.lost == machine.moves.get("lost", 0)
    assert machine.moves["left"] > 5
    assert machine.moves["returned"] > 5
