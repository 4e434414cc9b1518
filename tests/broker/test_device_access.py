"""A process can open the devices of its leases: more with each lease, fewer with each
end, and nothing of a lease whose files are not known.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.device_access import DeviceAccess
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.system.device_scopes import DeviceScopes
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.bare_provider import BareProvider
from tests.fakes.leases import granted, wished
from tests.fakes.system_bus import SystemBus, system_bus

SELF = os.getpid()


@pytest.fixture
def bus() -> Iterator[SystemBus]:
    with (
        tempfile.TemporaryDirectory(prefix="bus") as folder,
        system_bus(Path(folder)) as made,
    ):
        yield made


@pytest.fixture
def gpus() -> BareProvider:
    return BareProvider(0, 1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(
    gpus: BareProvider, bus: SystemBus, clock: ManualClock, tmp_path: Path
) -> Iterator[Broker]:
    made = Broker(
        MemoryLedger(),
        [gpus],
        host="testbox",
        clock=clock,
        ttl_seconds=1e6,
        is_alive=lambda pid, since: True,
    )
    scopes = DeviceScopes(bus.path, tmp_path)
    made.devices.access = DeviceAccess(
        scopes, made.host_state.leases, made.devices.files_of
    )
    yield made
    made.close()


def bound(broker: Broker, name: str) -> Lease:
    """A lease of a whole GPU, which a kernel that is this process uses."""
    request = broker.submit("1", holder(name))
    lease = broker.lease(request.lease_id)
    broker.prepare(lease)
    broker.bind(lease.id, lease.token, pid=SELF, root_pid=SELF)
    return broker.lease(lease.id)


def opened(bus: SystemBus) -> list[str]:
    """The GPUs' files that the process may open by the last word of systemd."""
    properties = bus.calls[-1][1][2]
    *_, (_, pairs) = [value for name, value in properties if name == "DeviceAllow"]
    return [file for file, _ in pairs if file.startswith("/dev/gpu")]


def test_what_a_process_can_open_follows_its_leases(
    broker: Broker, gpus: BareProvider, bus: SystemBus
) -> None:
    gpus.files = True
    first = bound(broker, "kernel-1")
    own = f"/dev/gpu{first.slices[0].device_id[-1]}"
    assert opened(bus) == [own]
    second = bound(broker, "kernel-2")
    assert opened(bus) == ["/dev/gpu0", "/dev/gpu1"]
    broker.release(second.id, second.token)
    assert opened(bus) == [own]
    broker.release(first.id, first.token)
    assert opened(bus) == []


def test_a_lease_whose_files_are_not_known_is_a_problem_that_is_said(
    broker: Broker, bus: SystemBus, clock: ManualClock
) -> None:
    lease = bound(broker, "kernel-1")
    assert bus.calls == []
    clock.advance(5)
    [problem] = broker.inventory().problems
    assert f"process {SELF} of lease {lease.id} can open other devices" in problem
    broker.release(lease.id, lease.token)
    clock.advance(5)
    assert broker.inventory().problems == ()


def test_a_refusal_of_systemd_is_a_problem_and_the_lease_stays(
    broker: Broker, gpus: BareProvider, bus: SystemBus, clock: ManualClock
) -> None:
    gpus.files = True
    bus.refusals["StartTransientUnit"] = ("org.example.Error", "no such thing")
    lease = bound(broker, "kernel-1")
    clock.advance(5)
    assert "systemd refuses: no such thing" in broker.inventory().problems[0]
    assert broker.lease(lease.id).is_live


class SlowScopes(DeviceScopes):
    """Remembers what a process was let open last; something happens meanwhile."""

    def __init__(self, meanwhile: threading.Thread) -> None:
        super().__init__()
        self._meanwhile = meanwhile
        self.files: Sequence[str] = ()

    def confine(self, pid: int, files: Sequence[str]) -> None:
        if not self._meanwhile.ident:
            self._meanwhile.start()
            self._meanwhile.join(0.2)
        self.files = files


def test_a_lease_that_comes_while_another_ends_keeps_its_device() -> None:
    ledger = MemoryLedger()
    leases = []
    for name in ("a", "b"):
        lease = granted(ledger, wished(name))
        leases.append(replace(lease, holder=replace(lease.holder, root_pid=SELF)))
    first, second = leases
    live = [first]

    def come() -> None:
        live.append(second)
        access.enter(second, SELF)

    comes = threading.Thread(target=come)
    scopes = SlowScopes(comes)
    access = DeviceAccess(scopes, lambda: live, lambda lease: [lease.id])
    access.leave(first)
    comes.join()
    assert second.id in scopes.files
