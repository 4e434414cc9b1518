"""What starts and watches kernels finds the same broker, wherever that runs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.memory_watchdog import MemoryBreach
from jupyter_aistack.broker.remote.port import KernelBroker
from jupyter_aistack.broker.remote.records import BREACH
from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.model.condition import ConditionKind, new_condition
from jupyter_aistack.core.model.device import ProcessUse
from jupyter_aistack.core.model.kernel_report import KernelReport, Rename
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.wire.records import LEASE
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LeaseError,
    LeaseNotFound,
    Unsatisfiable,
)
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import holder


def acquire(kernels: KernelBroker, kernel_id: str = "k", spec: str = "1/2") -> None:
    kernels.acquire(kernel_id, spec, queue="", up_to="", label="work/a.ipynb")


def lease_of(kernels: KernelBroker, kernel_id: str = "k") -> Lease:
    (lease,) = [each for each in kernels.leases() if each.holder.id == kernel_id]
    return lease


def test_a_kernels_lease_from_its_request_to_its_release(
    broker: Broker, kernels: KernelBroker
) -> None:
    acquire(kernels)
    acquire(kernels)
    lease = lease_of(kernels)
    expected = broker.lease(lease.id)
    holder = expected.holder
    assert (holder.user, holder.pid, holder.label) == (
        current_user(),
        os.getpid(),
        "work/a.ipynb",
    )
    assert kernels.user == current_user()
    assert (lease.id, lease.token, lease.slices) == (
        expected.id,
        expected.token,
        expected.slices,
    )

    prepared = kernels.prepare(lease)
    assert prepared.environment == broker.preparation(lease).environment
    bound = kernels.bind(lease, pid=os.getpid(), root_pid=os.getpid())
    assert bound.holder.root_pid == os.getpid()

    condition = new_condition(ConditionKind.NOT_VERIFIED, "no time", broker.clock())
    active = kernels.activate(lease, verified=None, condition=condition)
    assert active.state is LeaseState.ACTIVE
    assert [each.message for each in broker.lease(lease.id).conditions] == ["no time"]
    assert kernels.is_listed(lease, os.getpid()) is None

    kernels.release(lease)
    kernels.release(lease)
    assert kernels.leases() == ()
    assert [each.id for each in kernels.recent_leases()] == [lease.id]


def test_a_kernel_that_waits_is_told_why(broker: Broker, kernels: KernelBroker) -> None:
    acquire(kernels, "first", "1")
    acquire(kernels, "second", "1")
    (request,) = kernels.requests()
    assert request.holder.id == "second"
    assert kernels.reason(request.id) == broker.waiting()[0].reason != ""
    kernels.cancel(request.id)
    assert kernels.requests() == ()
    assert kernels.reason(request.id) == ""
    kernels.run_cycle()
    kernels.maintain()
    kernels.record_first_use()


def test_what_others_hold_is_not_among_it(
    broker: Broker, kernels: KernelBroker
) -> None:
    theirs = broker.submit("1", holder("k", user="bob"))
    broker.submit("1", holder("k2", user="bob"))
    assert kernels.leases() == kernels.recent_leases() == kernels.requests() == ()
    report = KernelReport(gone=frozenset({"k", "k2"}))
    kernels.report(report)
    assert broker.lease(theirs.lease_id).is_live


def test_a_report_gives_back_and_renames(broker: Broker, kernels: KernelBroker) -> None:
    acquire(kernels, "stays", "1/4")
    acquire(kernels, "goes", "1/4")
    renamed = Rename(former=frozenset({"work/a.ipynb"}), label="work/b.ipynb")
    breaches = kernels.report(
        KernelReport(
            running=frozenset({"stays"}),
            busy=frozenset({"stays"}),
            gone=frozenset({"goes"}),
            renames={"stays": renamed},
        )
    )
    assert breaches == ()
    (left,) = broker.leases()
    assert (left.holder.id, left.holder.label) == ("stays", "work/b.ipynb")


def test_what_cannot_be_is_refused_alike(kernels: KernelBroker) -> None:
    with pytest.raises(InvalidRequest, match="spec"):
        acquire(kernels, spec="half")
    with pytest.raises(Unsatisfiable):
        acquire(kernels, spec="9")
    acquire(kernels)
    lease = lease_of(kernels)
    with pytest.raises(LeaseNotFound):
        kernels.prepare(replace(lease, id="l-none"))
    with pytest.raises(LeaseError):
        kernels.bind(replace(lease, token=99), pid=os.getpid(), root_pid=None)


def test_a_process_is_seen_on_the_devices_of_its_leases(
    broker: Broker, kernels: KernelBroker
) -> None:
    acquire(kernels)
    processes = kernels.processes_on_device([lease_of(kernels)], os.getpid())
    assert processes.clients() == frozenset()
    assert not processes.has_started(), "a simulated device lists no processes"
    assert processes.is_working(broker.clock()) is None
    processes.terminate(os.getpid())


def test_events_are_read_page_by_page(broker: Broker, kernels: KernelBroker) -> None:
    acquire(kernels)
    events = kernels.events(0, 100)
    happened = [(event.sequence, event.kind) for event in broker.events(0)]
    assert [(event.sequence, event.kind) for event in events] == happened
    assert kernels.events(events[0].sequence, 1) == events[1:2]


def test_a_host_without_real_gpus_hides_none(kernels: KernelBroker) -> None:
    hiding = kernels.device_hiding()
    assert not hiding.has_gpus
    assert dict(hiding.environment) == {}


def test_a_breach_of_memory_comes_over_the_wire_whole(
    broker: Broker, kernels: KernelBroker
) -> None:
    acquire(kernels)
    # Some of its holder is not for everybody, and is not on the wire.
    lease = LEASE.from_dict(LEASE.to_dict(lease_of(kernels)))
    breach = MemoryBreach(
        lease=lease,
        action=MemoryAction.INTERRUPT,
        process=ProcessUse(pid=7, memory_bytes=None, name="python"),
        started_at=1.5,
        is_root=True,
    )
    assert BREACH.from_dict(BREACH.to_dict(breach)) == breach
    kernels.breach_postponed(lease)
    kernels.breach_handled(lease, "its cell was interrupted")
