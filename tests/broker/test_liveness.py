"""One machine under several names, in several containers, started again: one device, one
lease.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.liveness import HolderLiveness, is_here, root_pid
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.lease import Lease, Outcome
from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.core.model.request import Holder, Request, RequestState
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.system.processes import boot_id, identity_of, pid_namespace
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import ManualClock, holder

NOBODY = 65534
LAB = HostIdentity(id="boot-1", name="lab-7f3a", machine="0b5e")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield made
    made.close()


def broker_of(
    ledger: Ledger, clock: ManualClock, host: HostIdentity = LAB, **options: object
) -> Broker:
    provider = SimulatedProvider("1xH100-80GB")
    return Broker(ledger, [provider], host=host, clock=clock, **options)  # type: ignore[arg-type]


def ask(broker: Broker, name: str, spec: str = "1", **fields: object) -> Request:
    fields = {"pid": os.getpid(), "user": current_user(), **fields}
    return broker.submit(spec, holder(name, host=broker.host, **fields))


def in_container(broker: Broker, lease: Lease, **fields: object) -> Holder:
    """Have a lease be held by a process of a PID namespace that cannot be seen."""
    there = {"pid": 42, "pid_namespace": 4711, "boot_id": boot_id(), **fields}
    held = replace(lease.holder, **there)  # type: ignore[arg-type]
    now = broker.clock()
    return broker.ledger.bind(lease.id, lease.token, now, holder=held).holder


def test_two_names_of_one_machine_share_its_devices(
    ledger: Ledger, clock: ManualClock
) -> None:
    first = broker_of(ledger, clock)
    second = broker_of(ledger, clock, replace(LAB, name="lab-91cc", machine=""))
    assert ask(first, "a").state is RequestState.GRANTED
    assert ask(second, "b").state is RequestState.QUEUED
    (lease,) = second.leases()
    assert (lease.holder.host, lease.holder.shown_host) == ("boot-1", "lab-7f3a")
    shown = (first.inventory(), second.inventory())
    assert [each.name_of(each.host) for each in shown] == ["lab-7f3a", "lab-91cc"]
    first.release(lease.id, lease.token)
    (lease,) = first.leases()
    assert lease.holder.shown_host == "lab-91cc"


def test_a_host_that_changes_its_name_keeps_its_leases(
    ledger: Ledger, clock: ManualClock
) -> None:
    ask(broker_of(ledger, clock), "a")
    renamed = broker_of(ledger, clock, replace(LAB, name="dhcp-17"))
    assert [lease.holder.id for lease in renamed.leases()] == ["a"]
    assert ask(renamed, "b").state is RequestState.QUEUED


def test_two_machines_of_one_name_are_two(ledger: Ledger, clock: ManualClock) -> None:
    brokers = [
        broker_of(ledger, clock, host)
        for host in (LAB, replace(LAB, id="boot-9", machine="beef"))
    ]
    for broker in brokers:
        assert ask(broker, broker.host).state is RequestState.GRANTED
    shown = [[lease.holder.id for lease in broker.leases()] for broker in brokers]
    assert shown == [["boot-1"], ["boot-9"]]


def test_after_a_start_the_device_is_free_and_old_leases_end(
    ledger: Ledger, clock: ManualClock
) -> None:
    before = broker_of(ledger, clock)
    granted = ask(before, "a")
    there = {"boot_id": "boot-1", "pid": 42, "pid_namespace": 7}
    held = in_container(before, ledger.lease(granted.lease_id, clock()), **there)
    ledger.submit(replace(granted, id="r-waits", holder=held, lease_id=""))

    after = broker_of(ledger, clock, replace(LAB, id="boot-2"))
    assert ask(after, "b").state is RequestState.GRANTED
    clock.advance(after.ttl_seconds - 1)
    after.maintain()
    assert ledger.lease(granted.lease_id, clock()).is_live, "it may be a namesake's"
    clock.advance(1.0)
    assert [each.holder.id for each in after.leases()] == ["b"]
    assert not ledger.lease(granted.lease_id, clock()).is_live
    assert ledger.request("r-waits").state is RequestState.CANCELLED


def test_a_namesake_that_lives_is_not_taken_for_the_machine_before(
    ledger: Ledger, clock: ManualClock
) -> None:
    """Two machines made from one image may call themselves alike in all."""
    twin = broker_of(ledger, clock)
    lease = ledger.lease(ask(twin, "a").lease_id, clock())
    assert lease.holder.process == identity_of(os.getpid())
    other = broker_of(ledger, clock, replace(LAB, id="boot-2"))
    clock.advance(twin.ttl_seconds - 1)
    twin.maintain()
    other.maintain()
    assert ledger.lease(lease.id, clock()).is_live
    assert [each.holder.id for each in twin.leases()] == ["a"]


def test_a_process_of_another_namespace_is_nobody_here(
    ledger: Ledger, clock: ManualClock
) -> None:
    broker = broker_of(ledger, clock)
    lease = ledger.lease(ask(broker, "a").lease_id, clock())
    assert (is_here(lease.holder), root_pid(lease.holder)) == (True, os.getpid())
    assert lease.holder.pid_namespace == pid_namespace()
    there = in_container(broker, lease, pid=os.getpid())
    assert (is_here(there), root_pid(there)) == (False, None)
    assert broker.processes.holders().ours == frozenset()
    clock.advance(broker.ttl_seconds - 5)
    broker.maintain()
    assert ledger.lease(lease.id, clock()).is_live, "it is not known to be gone"
    clock.advance(1.0)
    assert broker.processes.liveness(there) is Liveness.UNKNOWN


def test_whoever_lives_in_a_namespace_vouches_for_those_in_it(
    ledger: Ledger, clock: ManualClock, tmp_path: Path
) -> None:
    broker = broker_of(ledger, clock)
    lease = ledger.lease(ask(broker, "a").lease_id, clock())
    there = in_container(broker, lease)
    liveness = HolderLiveness(ledger)
    assert liveness(there) is Liveness.UNKNOWN

    other = SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    neighbour = ProcessIdentity(pid=1, boot_id=boot_id(), pid_namespace=4711)
    other.hold_presence(neighbour)
    assert liveness(there) is Liveness.ALIVE
    for _ in range(5):
        clock.advance(broker.ttl_seconds / 2)
        broker.maintain()
    assert ledger.lease(lease.id, clock()).is_live, "its own broker may be stopped"
    other.close()
    assert liveness(there) is Liveness.UNKNOWN


def test_who_has_shown_that_it_lives_and_does_not_is_gone(
    ledger: Ledger, clock: ManualClock, tmp_path: Path
) -> None:
    broker = broker_of(ledger, clock)
    lease = ledger.lease(ask(broker, "a").lease_id, clock())
    there = in_container(broker, lease, pid_started_at=1.0)
    assert there.process is not None
    folder = tmp_path / "ledger.sqlite.presence"
    (folder / f"{boot_id()}.4711.42-1.00.lock").touch()
    assert HolderLiveness(ledger)(there) is Liveness.GONE
    clock.advance(1.0)
    broker.cycle()
    clock.advance(1.0)
    broker.cycle()
    assert ledger.lease(lease.id, clock()).outcome is Outcome.ABANDONED


def test_requests_of_another_namespace_are_answered_by_its_own_broker(
    ledger: Ledger, clock: ManualClock
) -> None:
    broker = broker_of(ledger, clock)
    ask(broker, "a")
    waiting = ask(broker, "b")
    elsewhere = replace(waiting.holder, pid_namespace=4711, pid=42, id="there")
    ledger.submit(
        replace(waiting, id="r-there", holder=elsewhere, submitted_at=clock() - 60)
    )
    (lease,) = broker.leases()
    broker.release(lease.id, lease.token)
    assert broker.request("r-there").state is RequestState.QUEUED
    assert broker.leases() == (), "its place is kept for it"
    broker.cancel("r-there")
    assert [each.holder.id for each in broker.leases()] == ["b"]


HOLDING = """
import sys
from jupyter_aistack.core.model.process import ProcessIdentity
from jupyter_aistack.ledger.sql.ledger import SQLLedger
url, pid, boot, namespace = sys.argv[1:]
ledger = SQLLedger(url)
ledger.hold_presence(ProcessIdentity(pid=int(pid), started=1.0, boot_id=boot,
    pid_namespace=int(namespace)))
print("held", flush=True)
sys.stdin.read()
"""
LOOKING = """
import os, sys
from jupyter_aistack.broker.liveness import HolderLiveness
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system import processes
url, pid, boot, namespace = sys.argv[1:]
real = processes._read
processes._read = lambda path: None if f"/{pid}/" in path else real(path)
holder = Holder(kind=HolderKind.PROCESS, id="p", user="root", host="box", pid=int(pid),
    pid_started_at=1.0, boot_id=boot, pid_namespace=int(namespace))
HolderLiveness(SQLLedger(url))(holder)  # imports what others may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(HolderLiveness(SQLLedger(url))(holder).name)
"""


@pytest.mark.service
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to look as another user")
def test_a_hidden_process_with_the_number_of_a_dead_holder_keeps_no_lease() -> None:
    """Its start cannot be compared: what the holder showed in the ledger tells."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 0, NOBODY)
        os.chmod(name, 0o2770)
        numbers = map(str, (os.getpid(), boot_id(), pid_namespace()))
        words = [f"sqlite:///{name}/ledger.sqlite", *numbers]
        keeper = subprocess.Popen(
            [sys.executable, "-c", HOLDING, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"held\n"
        assert seen_by_another(words) == "ALIVE"
        keeper.kill()
        keeper.communicate()
        assert seen_by_another(words) == "GONE"


def seen_by_another(words: list[str]) -> str:
    """Whether a process lives, for a user from whom it is hidden."""
    seen = subprocess.run(
        [sys.executable, "-c", LOOKING, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return seen.stdout.strip()
