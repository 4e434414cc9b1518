"""What a ledger keeps of devices that are out of placement by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Plan
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerConflict
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
Grant = Callable[..., Lease]
FIRST = HostIdentity(id="boot-1", name="lab", machine="0b5e")
AGAIN = HostIdentity(id="boot-2", name="lab", machine="0b5e")


def drain(
    device_id: str = "GPU-0", host: str = "box", until: float | None = None
) -> Drain:
    return Drain(device_id=device_id, host=host, since=1.0, until=until)


def told(ledger: Ledger, lease: Lease) -> str:
    condition = ledger.lease(lease.id, 2.0).condition(ConditionKind.DEVICE_DRAINED)
    return "" if condition is None else condition.message


def test_a_drain_is_kept_until_it_is_taken_back(
    ledger: Ledger, wish: Wish, grant: Grant
) -> None:
    lease = grant(ledger, wish("r-1"))
    (device_id,) = {slice_.device_id for slice_ in lease.slices}
    version = ledger.read("box", 1.0).version
    ledger.drain(drain(device_id), 1.0)
    state = ledger.read("box", 1.0)
    assert state.drains == (drain(device_id),)
    assert ledger.read("other", 1.0).drains == ()
    assert "nothing new is granted there" in told(ledger, lease)
    with pytest.raises(LedgerConflict):
        ledger.apply(Plan(version=version), 1.0)

    assert ledger.undrain("box", "GPU-other", 2.0) is None
    assert ledger.undrain("box", device_id, 2.0) == drain(device_id)
    assert ledger.read("box", 2.0).drains == ()
    assert told(ledger, lease) == ""
    kinds = [event.kind for event in ledger.events()][-3:]
    assert kinds == [
        EventKind.DEVICE_DRAINED,
        EventKind.LEASE_DRAINED,
        EventKind.DEVICE_UNDRAINED,
    ]


def test_those_that_are_over_are_ended_on_their_host_alone(ledger: Ledger) -> None:
    short, long = drain(until=10.0), drain("GPU-1", until=20.0)
    elsewhere = drain(host="other", until=10.0)
    for each in (short, long, elsewhere):
        ledger.drain(each, 1.0)
    assert ledger.end_drains("box", 9.0) == ()
    assert ledger.end_drains("box", 10.0) == (short,)
    assert ledger.read("box", 10.0).drains == (long,)
    assert ledger.read("other", 10.0).drains == (elsewhere,)


def test_a_machine_that_is_started_again_keeps_them_from_its_first_moment(
    ledger: Ledger,
) -> None:
    ledger.register_host(FIRST, 0.0)
    on_gpu, on_cpu = drain(host="boot-1"), drain("CPU-boot-1", host="boot-1")
    ledger.drain(on_gpu, 1.0)
    ledger.drain(on_cpu, 1.0)
    assert ledger.register_host(AGAIN, 2.0) == ("boot-1",)
    kept = {each.device_id: each for each in ledger.read("boot-2", 2.0).drains}
    assert kept == {
        "GPU-0": replace(on_gpu, host="boot-2"),
        "CPU-boot-2": replace(on_cpu, host="boot-2", device_id="CPU-boot-2"),
    }
    ledger.undrain("boot-2", "GPU-0", 3.0)
    ledger.succeed_host("boot-1", AGAIN, 4.0)
    assert ledger.read("boot-1", 4.0).drains == ()
    assert [each.device_id for each in ledger.read("boot-2", 4.0).drains] == [
        "CPU-boot-2"
    ]
