"""What becomes of a Jupyter server's report of its kernels."""

from __future__ import annotations

import pytest

from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.broker.kernel_reports import take_report
from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.kernel_report import KernelReport, Rename
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.testing import ManualClock, holder, simulated_broker


def test_what_kernels_that_are_gone_held_and_wanted_is_given_back() -> None:
    broker = simulated_broker()
    gone = broker.submit("1/2", holder("gone"))
    worker = broker.submit("1/4", holder("worker", parent="gone"))
    stays = broker.submit("1/4", holder("stays"))
    waits = broker.submit("1/1", holder("gone"))
    alike = broker.submit("1/1", holder("gone", user="bob"))
    take_report(broker, "ann", KernelReport(gone=frozenset({"gone"})))
    assert not broker.lease(gone.lease_id).is_live
    assert not broker.lease(worker.lease_id).is_live
    assert broker.lease(stays.lease_id).is_live
    assert broker.request(waits.id).state is RequestState.CANCELLED
    assert broker.request(alike.id).state is RequestState.QUEUED


def test_lease_freed_by_a_kernel_that_is_gone_is_not_granted_to_it_again() -> None:
    broker = simulated_broker()
    first = broker.submit("1", holder("kernel-1"))
    again, other = (
        broker.submit("1", holder(name)) for name in ("kernel-1", "kernel-2")
    )
    take_report(broker, "ann", KernelReport(gone=frozenset({"kernel-1"})))
    states = [
        broker.request(request.id).state.value for request in (first, again, other)
    ]
    assert states == ["granted", "cancelled", "granted"]


def test_a_kernel_that_runs_something_is_in_use() -> None:
    broker = simulated_broker()
    lease_id = broker.submit("1/2", holder("busy")).lease_id
    broker.prepare(broker.lease(lease_id))
    broker.activate(lease_id, broker.lease(lease_id).token, verified=True)
    running = frozenset({"busy"})
    take_report(broker, "bob", KernelReport(running=running, busy=running))
    assert broker.lease(lease_id).active_at is None, "it is no kernel of bob's"
    take_report(broker, "ann", KernelReport(running=running, busy=running))
    assert broker.lease(lease_id).active_at == broker.clock()


def test_a_renamed_notebook_is_called_by_its_name_of_now() -> None:
    broker = simulated_broker()
    lease_id = broker.submit("1/1", holder("k", label="old.ipynb")).lease_id
    waits = broker.submit("1/2", holder("k2", label="mine"))
    old = frozenset({"old.ipynb"})
    renames = {
        "k": Rename(former=old, label="new.ipynb"),
        "k2": Rename(former=old, label="new.ipynb"),
    }
    take_report(broker, "ann", KernelReport(renames=renames))
    assert broker.lease(lease_id).holder.label == "new.ipynb"
    assert broker.request(waits.id).holder.label == "mine", "its user has chosen it"


def test_drivers_are_left_asleep_while_nothing_is_leased_or_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    broker = simulated_broker(clock=clock)
    asked = []

    def discover(self: DeviceManager) -> Inventory:
        asked.append(1)
        return Inventory(host=self.host)

    monkeypatch.setattr(DeviceManager, "_discover", discover)
    for _ in range(3):
        EmbeddedBroker(broker).report(KernelReport())
        clock.advance(60)
    assert asked == [1], "once, for those who share the ledger to know what is here"
