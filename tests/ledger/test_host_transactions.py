"""Machines, and what becomes of what they held when they are started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jupyter_aistack.core.model.device import DeviceKind
from jupyter_aistack.core.model.host import HostIdentity, HostReport, ReportedDevice
from jupyter_aistack.core.model.lease import Lease, LeaseTransition, Outcome
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
Grant = Callable[..., Lease]
FIRST = HostIdentity(id="boot-1", name="lab", machine="0b5e")
AGAIN = HostIdentity(id="boot-2", name="lab", machine="0b5e")


def kept_for_class(host: str) -> Reservation:
    times: dict[str, Any] = {"starts_at": 100.0, "ends_at": 200.0}
    spec = parse_spec("1")
    return Reservation(
        id="v-1", name="class", queue="default", spec=spec, count=1, host=host, **times
    )


def test_a_host_is_registered_once_under_each_of_its_names(ledger: Ledger) -> None:
    assert ledger.register_host(FIRST, 0.0) == ()
    assert ledger.register_host(FIRST, 0.0) == ()
    other_name = HostIdentity(id="boot-1", name="lab-7f3a", machine="c0de")
    assert ledger.register_host(other_name, 0.0) == ()
    with_machine = HostIdentity(id="boot-1", name="lab-7f3a", machine="f00d")
    assert ledger.register_host(with_machine, 0.0) == ()
    assert ledger.register_host(AGAIN, 0.0) == ("boot-1",)
    namesake = HostIdentity(id="boot-3", name="lab", machine="beef")
    assert ledger.register_host(namesake, 0.0) == (), "two machines, one name"


def test_what_was_written_under_a_name_becomes_the_hosts(
    ledger: Ledger, wish: Wish, grant: Grant
) -> None:
    lease = grant(ledger, wish("r-1", host="lab"))
    waiting = ledger.submit(wish("r-2", host="lab"))
    ledger.reserve(kept_for_class("lab"), 0.0)
    other = grant(ledger, wish("r-3", host="other"))
    version = ledger.read("boot-1", 1.0).version
    ledger.register_host(FIRST, 1.0)
    state = ledger.read("boot-1", 1.0)
    assert [kept.id for kept in state.leases] == [lease.id]
    assert [request.id for request in state.requests] == [waiting.id]
    assert [kept.id for kept in state.reservations] == ["v-1"]
    assert state.version > version, "plans of before do not know them"
    holder = ledger.lease(lease.id, 1.0).holder
    assert (holder.host, holder.host_name, holder.pid) == ("boot-1", "lab", 42)
    assert ledger.read("lab", 1.0).leases == ()
    assert ledger.lease(other.id, 1.0).holder.host == "other"


def test_after_a_start_nothing_of_before_is_held(
    ledger: Ledger, wish: Wish, grant: Grant
) -> None:
    ledger.register_host(FIRST, 0.0)
    lease = grant(ledger, wish("r-1", host="boot-1"))
    ledger.submit(wish("r-2", host="boot-1"))
    ledger.reserve(kept_for_class("boot-1"), 0.0)
    ledger.register_host(AGAIN, 5.0)
    ledger.succeed_host("boot-1", AGAIN, 5.0)
    ledger.succeed_host("boot-1", AGAIN, 6.0)
    ended = ledger.lease(lease.id, 6.0)
    assert (ended.outcome, ended.ended_at) == (Outcome.ABANDONED, 5.0)
    assert ledger.request("r-2").state is RequestState.CANCELLED
    assert ledger.request("r-2").reason == "its machine was started again"
    assert [kept.host for kept in ledger.read("boot-2", 6.0).reservations] == ["boot-2"]
    assert ledger.register_host(AGAIN, 6.0) == ()
    (account,) = ledger.read("boot-2", 6.0).accounts
    assert account.week_seconds > 0, "it is charged for what it had"


@pytest.mark.parametrize("machine", ["", "0b5e"])
def test_only_the_same_machine_under_the_same_name_follows(machine: str) -> None:
    before = HostIdentity(id="boot-1", name="lab", machine=machine)
    assert HostIdentity(id="boot-2", name="lab", machine=machine).may_follow(before)
    assert not before.may_follow(before)
    renamed = HostIdentity(id="boot-2", name="lob", machine=machine)
    assert not renamed.may_follow(before)
    moved = HostIdentity(id="boot-2", name="lab", machine="beef")
    assert not moved.may_follow(before)


def report(seen_at: float, host: str = "boot-1", **fields: Any) -> HostReport:
    gpu = ReportedDevice(
        id="GPU-1", index=0, name="H100", kind=DeviceKind.GPU, memory_bytes=80 << 30
    )
    return HostReport(
        **{"host": host, "host_name": "lab", "devices": (gpu,), **fields},
        seen_at=seen_at,
    )


def test_a_host_tells_what_it_grants_and_now_and_then_that_it_is_there(
    ledger: Ledger,
) -> None:
    version = ledger.read("boot-1", 0.0).version
    assert ledger.report_host(report(100.0)) == ()
    assert ledger.report_host(report(101.0, "boot-2")) == (report(100.0),)
    ledger.report_host(report(105.0))
    assert ledger.host_reports() == (report(100.0), report(101.0, "boot-2")), "recent"
    ledger.report_host(report(120.0))
    assert ledger.host_reports()[0].seen_at == 120.0
    bare = report(121.0, devices=())
    ledger.report_host(bare)
    assert ledger.host_reports()[0] == bare, "what is new is told at once"
    ledger.report_host(report(50.0, devices=()))
    assert ledger.host_reports()[0].seen_at == 50.0, "its clock was set back"
    part = report(60.0, allowance="GPU-1")
    ledger.report_host(part)
    assert ledger.host_reports()[1] == part, "who may use less tells it for itself"
    assert ledger.read("boot-1", 0.0).version == version, "no plan depends on it"


def test_a_host_that_was_started_again_is_one_host(ledger: Ledger) -> None:
    ledger.register_host(FIRST, 0.0)
    ledger.report_host(report(1.0))
    ledger.register_host(AGAIN, 2.0)
    ledger.report_host(report(2.0, "boot-2"))
    ledger.succeed_host("boot-1", AGAIN, 3.0)
    assert [each.host for each in ledger.host_reports()] == ["boot-2"]


def test_what_is_held_and_waits_on_other_hosts_is_told_by_user(
    ledger: Ledger, wish: Wish, grant: Grant
) -> None:
    here = grant(ledger, wish("r-1"))
    there = grant(ledger, wish("r-2", host="far"))
    waiting = [ledger.submit(wish(f"w-{n}", float(n), host="far")) for n in range(2)]
    own = ledger.submit(wish("w-9", 9.0))
    state = ledger.read("box", 10.0)
    assert [lease.id for lease in state.leases] == [here.id]
    assert [lease.id for lease in state.elsewhere] == [there.id]
    assert [request.id for request in state.requests] == [own.id]
    assert dict(state.queued_elsewhere) == {"ann": 2}
    assert [request.id for request in ledger.waiting()] == ["w-0", "w-1", "w-9"]
    ledger.cancel(waiting[0].id, 11.0)
    step = LeaseTransition.RELEASE
    ledger.step(there.id, there.token, step, 12.0)
    ledger.step(there.id, there.token, LeaseTransition.FINISH, 12.0)
    state = ledger.read("box", 13.0)
    assert state.elsewhere == ()
    assert dict(state.queued_elsewhere) == {"ann": 1}
