"""Machines, and what becomes of what they held when they are started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.lease import Lease, Outcome
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
