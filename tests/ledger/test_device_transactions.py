"""Devices that are out of placement: written down once, told once, forgotten together."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.device_health import DeviceFault, HealthCode
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]
TOLD = new_condition(ConditionKind.DEVICE_UNHEALTHY, "H100 is sick", 5.0)
DEVICE_KINDS = (
    EventKind.DEVICE_FAULTED,
    EventKind.DEVICE_RECOVERED,
    EventKind.LEASE_FAULTED,
)


def fault(
    code: HealthCode = HealthCode.XID_ERROR,
    device_id: str = "GPU-1",
    evidence: str = "",
    host: str = "box",
) -> DeviceFault:
    return DeviceFault(
        host=host,
        device_id=device_id,
        code=code,
        message="is sick",
        since=4.0,
        evidence=evidence,
    )


def happened(ledger: Ledger) -> list[tuple[EventKind, str]]:
    return [
        (event.kind, event.device_id or event.lease_id)
        for event in ledger.events()
        if event.kind in DEVICE_KINDS
    ]


def test_a_fault_is_written_down_and_told_to_those_on_the_device(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    held = grant(ledger, wish("r-1"))
    ended = grant(ledger, wish("r-2"))
    ledger.step(ended.id, ended.token, LeaseTransition.RELEASE, 1.0)
    ledger.step(ended.id, ended.token, LeaseTransition.FINISH, 1.0)
    elsewhere = grant(ledger, wish("r-3", host="other"))
    for _ in range(2):
        ledger.record_device_faults("box", "GPU-1", [fault()], 5.0, TOLD)
    assert ledger.device_faults("box") == (fault(),)
    assert ledger.device_faults("other") == ()
    assert ledger.lease(held.id, 6.0).conditions == (TOLD,)
    assert ledger.lease(ended.id, 6.0).conditions == ()
    assert ledger.lease(elsewhere.id, 6.0).conditions == ()
    assert happened(ledger) == [
        (EventKind.DEVICE_FAULTED, "GPU-1"),
        (EventKind.LEASE_FAULTED, held.id),
    ]


def test_what_else_is_found_out_is_kept_beside_it_and_told_to_nobody(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    grant(ledger, wish("r-1"))
    ledger.record_device_faults("box", "GPU-1", [fault()], 5.0, TOLD)
    lost = fault(HealthCode.FELL_OFF_BUS)
    better = fault(evidence="seen")
    ledger.record_device_faults("box", "GPU-1", [lost], 6.0, TOLD)
    ledger.record_device_faults("box", "GPU-1", [better], 7.0, TOLD)
    assert {known.code: known for known in ledger.device_faults("box")} == {
        lost.code: lost,
        better.code: better,
    }
    kinds = [kind for kind, _ in happened(ledger)]
    assert kinds.count(EventKind.LEASE_FAULTED) == 1
    assert kinds.count(EventKind.DEVICE_FAULTED) == 2


def test_a_holder_who_knows_of_another_fault_is_told_when_the_device_is_sick(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    by_server = new_condition(ConditionKind.DEVICE_FAULT, "its server broke", 2.0)
    update = ConditionUpdate(put=(by_server,))
    ledger.bind(lease.id, lease.token, 2.0, conditions=update)
    ledger.record_device_faults("box", "GPU-1", [fault()], 5.0, TOLD)
    assert ledger.lease(lease.id, 6.0).conditions == (TOLD, by_server)
    ledger.clear_device_faults("box", "GPU-1", 7.0, "it is well")
    assert ledger.lease(lease.id, 8.0).conditions == (by_server,)


def test_who_comes_later_is_told_too(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    ledger.record_device_faults("box", "GPU-1", [fault()], 5.0, TOLD)
    lease = grant(ledger, wish("r-1"))
    ledger.record_device_faults("box", "GPU-1", [fault()], 6.0, TOLD)
    assert ledger.lease(lease.id, 6.0).conditions == (TOLD,)


def test_a_device_that_recovers_clears_what_its_leases_were_told(
    ledger: Ledger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"))
    faults = [fault(), fault(HealthCode.FELL_OFF_BUS)]
    ledger.record_device_faults("box", "GPU-1", faults, 5.0, TOLD)
    ledger.record_device_faults("box", "GPU-2", [fault(device_id="GPU-2")], 5.0, TOLD)
    assert ledger.clear_device_faults("box", "GPU-1", 8.0, "it is well")
    assert not ledger.clear_device_faults("box", "GPU-1", 9.0, "it is well")
    assert ledger.lease(lease.id, 9.0).conditions == ()
    assert [known.device_id for known in ledger.device_faults("box")] == ["GPU-2"]
    assert happened(ledger)[-1] == (EventKind.DEVICE_RECOVERED, "GPU-1")
    assert ledger.events()[-1].detail == "it is well"


def test_the_faults_of_a_machine_end_with_its_run(ledger: Ledger) -> None:
    first = HostIdentity(id="boot-1", name="lab", machine="0b5e")
    again = HostIdentity(id="boot-2", name="lab", machine="0b5e")
    ledger.register_host(first, 0.0)
    known = fault(host="boot-1")
    ledger.record_device_faults("boot-1", "GPU-1", [known], 1.0, TOLD)
    ledger.register_host(again, 2.0)
    ledger.succeed_host("boot-1", again, 2.0)
    assert ledger.device_faults("boot-1") == ledger.device_faults("boot-2") == ()
