"""The books of a host: what a broker's devices and leases used, charged once, whoever
keeps them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
from jupyter_aistack.broker.usage_meter import SETTLE_SECONDS, SILENT_SECONDS
from jupyter_aistack.core.accounting.charges import (
    SYSTEM,
    CellInterval,
    UsageRecord,
    UsageSummary,
)
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.bare_provider import BareProvider, Leases, Pids


class Metered(BareProvider):
    """One GPU whose counter and whose leases' activity a test sets."""

    name = "metered"
    memory_bytes = 140 * GIB

    def __init__(self) -> None:
        super().__init__()
        self.counter: int | None = 1_000_000
        self.busy: dict[str, float] = {}
        self.others: float | None = 0.0
        self.looks: list[set[str]] = []

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        self.looks.append(set(leases))
        used = {
            i: Usage(
                memory_bytes=GIB,
                utilization=self.busy.get(i, 0.0)
                / float(sum(slice_.fraction for slice_ in lease.slices)),
            )
            for i, lease in leases.items()
        }
        reading = DeviceSample(
            millijoules=self.counter, leases=used, others=self.others
        )
        return {"GPU-0": reading}


class Host:
    """A broker on that GPU, and the time."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        clock: ManualClock | None = None,
        gpu: Metered | None = None,
    ) -> None:
        self.gpu, self.clock = gpu or Metered(), clock or ManualClock()
        self.ledger = ledger or MemoryLedger()
        self.broker = Broker(
            self.ledger,
            [self.gpu],
            host="box",
            clock=self.clock,
            is_alive=lambda pid, since: True,
        )

    def lease(self, spec: str, name: str = "kernel-1") -> Lease:
        request = self.broker.submit(spec, holder(name, host="box", pid=1))
        lease = self.broker.lease(request.lease_id)
        self.broker.record_usage()
        return lease

    def pass_time(
        self, seconds: float, watts: float = 100.0, step: float = 2.0
    ) -> None:
        """Maintain the broker every two seconds, as a server does."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            if self.gpu.counter is not None:
                self.gpu.counter += int(watts * step * 1000)
            self.broker.maintain()

    def paid(self) -> dict[str, UsageRecord]:
        return {f"{c.lease_id}{c.cell}": c for c in self.ledger.charges(0, 99_999)}

    def settle(self) -> None:
        self.broker.record_usage(settle=True)

    def total(self) -> int:
        return sum(charge.millijoules for charge in self.ledger.charges(0, 99_999))


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_lease_pays_for_its_share_at_rest_and_its_work(host: Host) -> None:
    lease = host.lease("1/4")
    host.pass_time(20, watts=80.0)  # at rest, which calibrates
    host.gpu.busy[lease.id] = 0.5
    host.pass_time(20, watts=280.0)
    mine, system = host.paid()[lease.id], host.paid()[SYSTEM]
    assert mine.millijoules == 20_000 * 20 * 2 + 200_000 * 20
    assert mine.millijoules + system.millijoules == 80_000 * 20 + 280_000 * 20
    assert (mine.seconds, mine.share_seconds, mine.metered_seconds) == (
        40.0,
        10.0,
        40.0,
    )
    assert mine.busy_seconds == pytest.approx(10.0)
    assert (mine.levels[0], mine.watched_seconds, mine.peak_bytes) == (20.0, 40.0, GIB)
    assert (mine.user, mine.label, mine.owner, mine.spec) == (
        "ann",
        "kernel-1.ipynb",
        "kernel-1",
        "1/4",
    )
    (meter,) = host.ledger.meters("box")
    assert (meter.idle_watts, meter.is_idle_seen) == (80.0, True)


def test_what_was_used_is_written_every_ten_seconds_in_one_bill(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    bills = []
    settle = host.ledger.settle
    monkeypatch.setattr(
        host.ledger, "settle", lambda bill: (bills.append(bill), settle(bill))
    )
    host.lease("1/4")
    host.pass_time(60)
    assert len(bills) == 1 + 60 / SETTLE_SECONDS
    assert len(host.gpu.looks) == 31
    host.broker.record_usage()
    assert len(host.gpu.looks) == 31, "two looks within a second are one"


def test_the_books_are_closed_with_the_last_lease_and_the_device_is_left_asleep(
    host: Host,
) -> None:
    lease = host.lease("1/2")
    host.pass_time(4)
    host.broker.release(lease.id, lease.token)
    EmbeddedBroker(host.broker).report(KernelReport())
    assert not host.broker.usage_meter.is_open
    assert host.paid()[lease.id].seconds == 4.0
    looks = len(host.gpu.looks)
    host.clock.advance(3600.0)
    EmbeddedBroker(host.broker).report(KernelReport())
    assert len(host.gpu.looks) == looks
    host.gpu.counter = (host.gpu.counter or 0) + 5_000
    host.lease("1/2")
    host.pass_time(10)
    assert host.total() == (host.gpu.counter or 0) - 1_000_000, (
        "what was drawn meanwhile is the system's"
    )
    assert host.paid()[lease.id].millijoules < 500_000


def test_a_lease_that_ends_between_looks_is_charged_to_its_end_for_what_its_processes_did(
    host: Host,
) -> None:
    first, second = host.lease("1/2"), host.lease("1/2", "kernel-2")
    host.gpu.busy = {first.id: 0.5, second.id: 0.5}
    host.pass_time(10)
    host.clock.advance(0.5)
    host.broker.release(first.id, first.token)
    host.clock.advance(1.5)
    host.gpu.counter = (host.gpu.counter or 0) + 200_000
    host.broker.maintain()
    assert host.gpu.looks[-1] == {first.id, second.id}
    host.pass_time(10)
    assert host.gpu.looks[-1] == {second.id}
    host.settle()
    paid = host.paid()
    assert (paid[first.id].seconds, paid[second.id].seconds) == (10.5, 22.0)
    assert host.total() == (host.gpu.counter or 0) - 1_000_000


def test_a_lease_that_comes_and_goes_between_looks_is_charged_for_its_time(
    host: Host,
) -> None:
    host.lease("1/4")
    host.pass_time(10)
    host.clock.advance(0.5)
    request = host.broker.submit("1/2", holder("kernel-2", host="box", pid=1))
    short = host.broker.lease(request.lease_id)
    host.clock.advance(0.25)
    host.broker.release(short.id, short.token)
    host.clock.advance(-0.75)
    host.pass_time(10)
    assert host.paid()[short.id].seconds == 0.25
    assert host.paid()[short.id].watched_seconds == 0.0


def test_a_driver_that_was_loaded_again_leaves_that_stretch_unknown(host: Host) -> None:
    lease = host.lease("1")
    host.pass_time(10)
    host.gpu.counter = 500
    host.clock.advance(2.0)
    host.broker.maintain()
    host.pass_time(8)
    mine = host.paid()[lease.id]
    assert (mine.seconds, mine.metered_seconds) == (20.0, 18.0)
    assert mine.millijoules == 18 * 100_000


def test_a_counter_that_is_silent_for_a_moment_loses_nothing(host: Host) -> None:
    lease = host.lease("1")
    host.pass_time(10)
    counter, host.gpu.counter = host.gpu.counter, None
    host.pass_time(4)
    host.gpu.counter = (counter or 0) + 400_000
    host.pass_time(6)
    mine = host.paid()[lease.id]
    assert (mine.seconds, mine.metered_seconds, mine.millijoules) == (
        20.0,
        20.0,
        2_000_000,
    )


def test_a_device_without_a_counter_has_no_energy_and_no_zero(host: Host) -> None:
    host.gpu.counter = None
    lease = host.lease("1/4")
    host.pass_time(20)
    assert (host.paid()[lease.id].seconds, host.paid()[lease.id].metered_seconds) == (
        20.0,
        0.0,
    )
    assert SYSTEM not in host.paid()


def test_a_clock_that_is_set_back_charges_no_time_twice(host: Host) -> None:
    lease = host.lease("1/2")
    host.pass_time(20)
    host.clock.advance(-100.0)
    host.pass_time(20)
    host.settle()
    assert host.paid()[lease.id].seconds <= 40.0
    assert host.total() == (host.gpu.counter or 0) - 1_000_000


def test_a_lease_is_not_charged_while_its_state_is_parked(host: Host) -> None:
    lease, other = host.lease("1/2"), host.lease("1/2", "kernel-2")
    host.broker.activate(lease.id, lease.token, verified=True)
    host.pass_time(10)
    host.ledger.step(lease.id, lease.token, LeaseTransition.SUSPEND, host.clock.now)
    host.pass_time(6)
    host.ledger.step(lease.id, lease.token, LeaseTransition.RESUME, host.clock.now)
    host.pass_time(4)
    assert (host.paid()[lease.id].seconds, host.paid()[other.id].seconds) == (
        14.0,
        20.0,
    )
    assert host.total() == (host.gpu.counter or 0) - 1_000_000


def test_a_clock_that_jumps_ahead_charges_no_more_than_a_lease_lived(
    host: Host,
) -> None:
    lease = host.lease("1/2")
    host.pass_time(10)
    host.clock.advance(50)
    ended = host.broker.release(lease.id, lease.token)
    assert ended.ended_at is not None
    host.clock.advance(1e6)
    host.broker.maintain()
    charges = [
        charge
        for charge in host.ledger.charges(0, 99_999)
        if charge.lease_id == lease.id
    ]
    assert (
        sum(charge.seconds for charge in charges)
        == ended.ended_at - ended.granted_at
        == 60.0
    )
    assert sum(charge.memory_seconds for charge in charges) == 10.0, (
        "what was held while nobody looked is not known"
    )
    assert host.total() == (host.gpu.counter or 0) - 1_000_000


def test_old_cells_become_part_of_their_leases(host: Host) -> None:
    old = UsageRecord(
        host="box",
        device_id="GPU-0",
        lease_id="l-0",
        cell="1:a",
        day=5,
        seconds=2.0,
        millijoules=7,
    )
    host.ledger.settle(UsageSummary(charges=(old, replace(old, cell="2:b"))))
    host.clock.now = 86400.0 * 36
    host.lease("1/2")
    assert [(one.cell, one.seconds) for one in host.ledger.charges(5, 5)] == [("", 4.0)]


def test_cells_are_charged_for_what_happened_while_they_ran(host: Host) -> None:
    lease = host.lease("1/2")
    host.gpu.busy[lease.id] = 0.8
    began = host.clock.now + 2.0
    host.ledger.record_cells(
        [
            CellInterval(
                host="box",
                user="ann",
                owner="kernel-1",
                cell="3:ab",
                began_at=began,
                ended_at=began + 4.0,
            )
        ]
    )
    host.pass_time(10)
    paid = host.paid()
    assert (paid[f"{lease.id}3:ab"].seconds, paid[lease.id].seconds) == (4.0, 6.0)
    assert paid[f"{lease.id}3:ab"].busy_seconds == pytest.approx(3.2)


def test_counts_for_a_dashboard_are_of_live_leases_and_of_users(host: Host) -> None:
    first, second = host.lease("1/2"), host.lease("1/2", "kernel-2")
    host.pass_time(10)
    charged = host.broker.usage_meter.charged
    assert {one.lease_id: one.gpu_seconds for one in charged.values() if one.user} == {
        first.id: 5.0,
        second.id: 5.0,
    }
    host.broker.release(first.id, first.token)
    host.pass_time(10)
    charged = host.broker.usage_meter.charged
    assert {one.lease_id: one.gpu_seconds for one in charged.values() if one.user} == {
        "": 5.0,
        second.id: 10.0,
    }
    assert sum(one.millijoules or 0 for one in charged.values()) == host.total()


# -- several on one host ---------------------------------------------------------------


def both() -> tuple[Host, Host]:
    first = Host()
    return first, Host(first.ledger, first.clock, first.gpu)


def turn(hosts: tuple[Host, ...], seconds: float) -> None:
    for _ in range(int(seconds / 2)):
        hosts[0].clock.advance(2.0)
        hosts[0].gpu.counter = (hosts[0].gpu.counter or 0) + 200_000
        for one in hosts:
            one.broker.maintain()


def test_of_two_servers_on_one_host_one_keeps_the_books(host: Host) -> None:
    first, second = both()
    lease = first.lease("1/2")
    turn((first, second), 60)
    assert (first.broker.usage_meter.is_open, second.broker.usage_meter.is_open) == (
        True,
        False,
    )
    assert first.paid()[lease.id].seconds == 60.0
    assert first.total() == (first.gpu.counter or 0) - 1_000_000


def test_another_takes_over_from_one_that_falls_silent_and_nothing_counts_twice() -> (
    None
):
    first, second = both()
    lease = first.lease("1/2")
    turn((first, second), 20)
    turn((second,), SILENT_SECONDS + 2 * SETTLE_SECONDS)
    assert second.broker.usage_meter.is_open
    turn((first, second), 20)
    assert (first.broker.usage_meter.is_open, second.broker.usage_meter.is_open) == (
        False,
        True,
    )
    mine = first.paid()[lease.id]
    assert mine.seconds == pytest.approx(SILENT_SECONDS + 60.0, abs=SETTLE_SECONDS)
    assert 20.0 <= mine.metered_seconds < mine.seconds, (
        "whose energy it was while nobody looked is not known"
    )
    assert first.total() == pytest.approx(
        (first.gpu.counter or 0) - 1_000_000, abs=SETTLE_SECONDS * 100_000
    )


def test_one_that_is_closed_hands_over_at_once() -> None:
    first, second = both()
    first.lease("1/2")
    turn((first, second), 20)
    first.broker.usage_meter.transfer_metering()
    turn((second,), SETTLE_SECONDS + 2)
    assert second.broker.usage_meter.is_open


def test_two_that_begin_together_find_out_and_charge_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = both()
    monkeypatch.setattr(second.ledger, "meters", lambda host: ())
    lease = first.lease("1/2")
    turn((first, second), 30)
    assert second.broker.usage_meter.is_open is False
    assert first.paid()[lease.id].seconds == 30.0


def test_a_ledger_that_cannot_be_written_is_charged_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = host.lease("1/2")
    host.pass_time(8)

    def refuse(bill: Any) -> None:
        raise LedgerUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(host.ledger, "settle", refuse)
        host.pass_time(2)
        with pytest.raises(LedgerUnavailable):
            host.settle()
    host.pass_time(2)
    assert host.paid()[lease.id].seconds == 12.0
    assert host.total() == (host.gpu.counter or 0) - 1_000_000


def test_a_mistake_in_the_books_costs_nobody_a_lease(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = host.lease("1/2")
    monkeypatch.setattr(host.gpu, "sample", lambda *given: 1 / 0)
    host.pass_time(120)
    assert host.broker.lease(lease.id).is_live


def test_whatever_happens_the_charges_are_what_the_counter_moved_by() -> None:
    rng = random.Random(4)
    first, second = both()
    hosts, leases = (first, second), []
    first.lease("1/8", "kernel-0")
    base = first.gpu.counter or 0
    for number in range(400):
        first.clock.advance(rng.choice([0.3, 2.0, 2.0, 2.0, 7.0, 45.0, -1.0]))
        first.gpu.counter = (first.gpu.counter or 0) + rng.randrange(700_000)
        first.gpu.others = rng.choice([0.0, 0.3, None])
        first.gpu.busy = {
            lease.id: rng.random() for lease in leases if rng.random() < 0.7
        }
        one = rng.choice(hosts)
        if rng.random() < 0.15:
            request = one.broker.submit(
                rng.choice(["1/8", "1/4"]),
                holder(f"kernel-{number}", host="box", pid=1),
            )
            leases += [first.broker.lease(request.lease_id)] if request.lease_id else []
        elif leases and rng.random() < 0.15:
            gone = leases.pop(rng.randrange(len(leases)))
            one.broker.release(gone.id, gone.token)
        one.broker.maintain()
    meters = first.ledger.meters("box")
    assert first.total() == (meters[0].millijoules or 0) - base
    assert (meters[0].millijoules or 0) > base
    assert all(charge.millijoules >= 0 for charge in first.ledger.charges(0, 99_999))


# -- a driver --------------------------------------------------------------------------


DRIVEN = """
import os
from dataclasses import asdict
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.testing import ManualClock, holder
clock = ManualClock()
broker = Broker(MemoryLedger(), [GPUProvider()], host="box", clock=clock, ttl_seconds=3600.0)
def submit(spec, pid):
    lease = broker.submit(spec, holder(f"kernel-{pid}", host="box", pid=pid)).lease_id
    broker.record_usage()
    return lease
def later(seconds):
    clock.advance(seconds)
    broker.record_usage()
"""


def test_a_drivers_counter_is_charged_to_the_leases_on_it(fake_nvml: Any) -> None:
    def state(joules: int, sm: int) -> str:
        gpu = f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} cores=16896 energy_mj={joules * 1000}\n"
        return gpu + f"process gpu=0 pid={child.pid} memory={9 * GIB} sm={sm}\n"

    child = fake_nvml.python(
        f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} energy_mj=0\n", DRIVEN
    )
    lease = child("submit('1/2', os.getpid())")
    fake_nvml.change(state(800, 0))
    child.run("later(10)")
    fake_nvml.change(state(800 + 4000, 60))
    child.run("later(10)")
    charges = {
        c["lease_id"]: c
        for c in child("[asdict(c) for c in broker.ledger.charges(0, 99999)]")
    }
    assert charges[lease]["millijoules"] == 400_000 + 400_000 + 3_200_000
    assert charges[""]["millijoules"] == 800_000
    assert (charges[lease]["peak_bytes"], charges[lease]["busy_seconds"]) == (
        9 * GIB,
        pytest.approx(6.0),
    )


# -- leases shorter than a tick --------------------------------------------------------


def test_a_lease_that_comes_and_goes_while_nothing_is_recorded_is_charged_for_its_time(
    host: Host,
) -> None:
    host.clock.advance(5.0)
    request = host.broker.submit("1/2", holder("kernel-1", host="box", pid=1))
    lease = host.broker.lease(request.lease_id)
    host.clock.advance(0.75)
    host.broker.release(lease.id, lease.token)
    host.clock.advance(1.25)
    EmbeddedBroker(host.broker).report(KernelReport())
    assert (host.paid()[lease.id].seconds, host.paid()[lease.id].metered_seconds) == (
        0.75,
        0.0,
    )
    assert not host.broker.usage_meter.is_open
    host.clock.advance(2.0)
    EmbeddedBroker(host.broker).report(KernelReport())
    assert len(host.gpu.looks) == 1, "a ledger that has not changed asks no driver"


def test_a_first_lease_is_charged_from_its_grant_though_the_tick_comes_later(
    host: Host,
) -> None:
    request = host.broker.submit("1/2", holder("kernel-1", host="box", pid=1))
    host.clock.advance(1.5)
    host.pass_time(8)
    host.settle()
    mine = host.paid()[request.lease_id]
    assert (mine.seconds, mine.metered_seconds) == (9.5, 6.0)


def test_a_request_and_a_release_between_two_ticks_ask_no_driver(host: Host) -> None:
    host.lease("1/4")
    looks = len(host.gpu.looks)
    for number in range(5):
        request = host.broker.submit("1/2", holder(f"k-{number}", host="box", pid=1))
        lease = host.broker.lease(request.lease_id)
        host.broker.release(lease.id, lease.token)
    assert len(host.gpu.looks) == looks
