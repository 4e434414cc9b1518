"""A broker whose idle kernels give their GPU memory back: on simulated devices, with
each move made believe.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import (
    NOT_CHECKED,
    PINNED_BY_USER,
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
    reset_for_new_process,
    resumed,
    suspended,
    with_pin_reason,
)
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy
from jupyter_aistack.core.model.request import HolderKind, Request
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.model.usage_history import decayed_use
from jupyter_aistack.core.scheduling.fair_share import FairShare
from jupyter_aistack.core.suspend.capability import UNTESTED, SuspendCapability
from jupyter_aistack.core.suspend.host_memory import from_environment, to_environment
from jupyter_aistack.exceptions import LeaseError, LeaseLost
from jupyter_aistack.testing import ManualClock, holder, simulated_broker

POLICY = Policy(queues=(Queue(name="default", suspend=True), Queue(name="plain")))


class Host:
    """A broker, the kernels on it by name, and a clock."""

    def __init__(self, table: str = "1xH100-80GB", **options: Any) -> None:
        self.clock = ManualClock()
        text = {
            "policy": POLICY,
            "suspend": SuspendPolicy(),
            "host_memory": lambda: 1000 * GIB,
        }
        self.broker: Broker = simulated_broker(
            table, **{**text, "clock": self.clock, "ttl_seconds": 1e6, **options}
        )

    def ask(self, name: str, spec: str = "1", **fields: Any) -> Request:
        kind = fields.pop("kind", HolderKind.KERNEL)
        return self.broker.submit(
            spec, holder(name, kind=kind, user=fields.pop("user", "ann")), **fields
        )

    def lease(self, name: str) -> Lease:
        return next(
            lease for lease in self.broker.leases(live=False) if lease.holder.id == name
        )

    def home(self, name: str) -> DeviceState:
        home = self.lease(name).residence
        assert home is not None
        return home

    def start(self, name: str, spec: str = "1", **fields: Any) -> Lease:
        """A kernel that has its lease, and whose server has said that it can be
        suspended.
        """
        self.ask(name, spec, **fields)
        lease = self.lease(name)
        self.broker.prepare(lease)
        self.broker.activate(lease.id, lease.token, verified=True)
        return self.broker.update_device_state(
            lease.id, lease.token, lambda item: with_pin_reason(item, "")
        )

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and plan."""
        self.clock.advance(seconds)
        self.broker.cycle()

    def apply_action(self, lease: Lease) -> Lease:
        """Do the move of a lease: nothing is there to be moved, so it is done at
        once.
        """
        assert lease.residence is not None
        state = self.broker.devices.simulated_state(lease)
        assert state is not None
        if lease.residence.phase is StatePhase.PARKING:
            out = partial(suspended, state_bytes=state, tier=SuspendMethod.SIMULATED)
            return self.broker.update_device_state(lease.id, lease.token, out)
        return self.broker.update_device_state(
            lease.id, lease.token, lambda item: resumed(item, self.clock())
        )

    def move(self) -> list[str]:
        """What is to move does, and then there is another turn; who that was."""
        moving = [
            self.apply_action(lease).holder.id for lease in self.broker.transfers()
        ]
        self.turn()
        return moving


def test_two_kernels_take_turns_on_a_gpu_that_holds_one() -> None:
    host = Host()
    host.start("a")
    host.ask("b")
    host.turn(59.0)
    assert host.broker.transfers() == ()  # it has not rested for long enough
    host.turn(1.0)
    assert host.home("a").phase is StatePhase.PARKING
    assert (host.move(), host.home("a").phase, host.lease("a").state) == (
        ["a"],
        StatePhase.PARKED,
        LeaseState.SUSPENDED,
    )
    assert (host.home("a").tier, host.home("a").state_bytes) == (
        SuspendMethod.SIMULATED,
        70 * GIB,
    )
    assert host.home("b").pinned == NOT_CHECKED
    host.broker.update_device_state(
        host.lease("b").id,
        host.lease("b").token,
        lambda item: with_pin_reason(item, ""),
    )

    host.broker.begin_cell(host.lease("a").id)
    assert host.home("a").wanted_at == host.clock.now
    host.turn(60.0)
    assert (host.move(), host.home("a").phase, host.home("b").phase) == (
        ["b"],
        StatePhase.RESTORING,
        StatePhase.PARKED,
    )
    assert host.move() == ["a"]
    assert (host.lease("a").state, host.home("a").is_busy) == (LeaseState.ACTIVE, True)
    host.broker.end_cell(host.lease("a").id)
    assert host.home("a") == DeviceState(
        active_at=host.clock.now, tier=SuspendMethod.SIMULATED
    )


def test_simulated_memory_follows_where_the_state_is() -> None:
    host = Host()
    lease = host.start("a")
    (gpu,) = host.broker.inventory().devices
    assert gpu.free_bytes == 80 * GIB  # as it was when it was last looked at
    host.clock.advance(2.0)
    (gpu,) = host.broker.inventory().devices
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    host.move()
    (free,) = host.broker.inventory().devices
    assert (gpu.free_bytes, free.free_bytes) == (10 * GIB, 80 * GIB)


def test_who_asks_is_suspended_at_once_and_comes_back_at_once() -> None:
    host = Host()
    lease = host.start("a")
    asked = host.broker.request_action(lease.id, RequestedAction.SUSPEND).residence
    assert asked is not None
    assert asked.phase is StatePhase.PARKING
    host.move()
    assert host.home("a").phase is StatePhase.PARKED
    host.broker.request_action(lease.id, RequestedAction.RESUME)
    assert (host.move(), host.home("a").phase, host.home("a").is_busy) == (
        ["a"],
        StatePhase.RESIDENT,
        False,
    )


def test_what_is_kept_stays_whoever_waits() -> None:
    host = Host()
    lease = host.start("a")
    host.broker.set_pinned(lease.id, True)
    host.ask("b")
    host.turn(1000.0)
    assert host.broker.transfers() == ()
    with pytest.raises(LeaseError, match="pinned by the user"):
        host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    host.broker.set_pinned(lease.id, False)
    assert [transfer.id for transfer in host.broker.transfers()] == [lease.id]


@pytest.mark.parametrize(
    ("options", "fields", "why"),
    [
        ({"suspend": None}, {}, "its administrator may set AIStack.suspend"),
        ({"capability": UNTESTED}, {}, "no self-test has shown yet"),
        ({}, {"queue": "plain"}, "queue plain lets none of its kernels be suspended"),
        ({}, {"kind": HolderKind.PROCESS}, "only a kernel with a share of a GPU"),
    ],
    ids=["off", "not tested", "queue", "process"],
)
def test_who_cannot_be_suspended_is_told_why(
    options: dict[str, Any], fields: dict[str, Any], why: str
) -> None:
    host = Host(**options)
    host.ask("a", **fields)
    lease = host.lease("a")
    assert lease.residence is None
    with pytest.raises(LeaseError, match=why):
        host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    with pytest.raises(LeaseError, match=why):
        host.broker.set_pinned(lease.id, True)
    assert host.broker.begin_cell(lease.id) == host.broker.end_cell(lease.id) == lease


def test_who_is_suspended_comes_back_though_suspending_was_switched_off_since() -> None:
    host = Host()
    lease = host.start("a")
    host.broker.record_activity([lease.id])
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    host.move()
    changed = SuspendCapability(why="the driver was changed")
    host.broker.suspend_support.update(changed)
    host.turn(1e5)
    assert (
        host.home("a").phase is StatePhase.PARKED
    )  # nor is it taken back for being idle
    host.broker.begin_cell(lease.id)
    assert (host.move(), host.home("a").phase) == (["a"], StatePhase.RESIDENT)


@pytest.mark.parametrize("moves", [0, 1], ids=["on its way", "parked"])
def test_a_lease_may_end_wherever_its_state_is(moves: int) -> None:
    host = Host()
    lease = host.start("a")
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    for _ in range(moves):
        host.move()
    host.broker.release(lease.id, lease.token)
    assert host.broker.transfers() == ()
    with pytest.raises(LeaseLost):
        host.apply_action(lease)
    host.start("b")
    assert host.home("b").phase is StatePhase.RESIDENT


def test_what_may_be_parked_is_bounded_by_the_hosts_memory() -> None:
    host = Host(
        "2xH100-80GB", host_memory=lambda: 150 * GIB
    )  # 60 % of that hold one whole GPU, and not two
    leases = [host.start("a"), host.start("b")]
    host.broker.request_action(leases[0].id, RequestedAction.SUSPEND)
    with pytest.raises(LeaseError, match="not enough host memory to suspend it: 160"):
        host.broker.request_action(leases[1].id, RequestedAction.SUSPEND)
    assert [lease.id for lease in host.broker.transfers()] == [leases[0].id]
    assert host.home("b").asked is RequestedAction.NOTHING


def test_simulated_state_takes_no_memory_of_the_host() -> None:
    host = Host("2xH100-80GB", host_memory=None)
    for lease in [host.start("a"), host.start("b")]:
        host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    assert len(host.broker.transfers()) == 2


def test_a_restarted_kernel_is_verified_while_it_is_suspended_and_waits_for_room_like_any_other() -> (
    None
):
    host = Host()
    lease = host.start("a")
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    host.move()
    host.start("b")
    host.broker.bind(lease.id, lease.token, pid=4_000_000)
    host.broker.update_device_state(
        lease.id, lease.token, lambda item: reset_for_new_process(item, host.clock.now)
    )
    anew = host.broker.activate(lease.id, lease.token, verified=True)
    assert (anew.state, anew.verified) == (LeaseState.SUSPENDED, True)
    assert (host.home("a").phase, host.home("a").state_bytes) == (StatePhase.PARKED, 0)
    host.broker.begin_cell(lease.id)
    host.turn(60.0)
    assert (host.move(), host.move()) == (["b"], ["a"])
    assert (host.lease("a").state, host.home("a").is_busy) == (LeaseState.ACTIVE, True)


def test_the_room_of_what_is_suspended_is_shown_as_free() -> None:
    host = Host()
    lease = host.start("a", "3/4")
    service, caller = Service(host.broker), Caller(user="ann", uid=1000)

    def shown() -> tuple[str, str]:
        text = service.call("host", {}, caller)
        return text["devices"][0]["free_fraction"], text["queues"][0]["held"]

    assert shown() == ("1/4", "3/4")
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    assert shown() == ("1/4", "3/4")  # it has not left yet
    host.move()
    assert shown() == ("1", "0")


def test_who_stays_as_the_host_has_no_room_for_all_is_shown_with_that_reason() -> None:
    host = Host("2xH100-80GB", host_memory=lambda: 150 * GIB)
    for name in ("a", "b"):
        host.start(name)
    text = Service(host.broker).call("leases", {}, Caller(user="ann", uid=1000))[
        "leases"
    ]
    shown = {lease["holder"]["id"]: lease["residence"] for lease in text}
    assert (shown["a"]["standing"], shown["a"]["why"]) == ("warm", "")
    assert shown["b"]["standing"] == "pinned"
    assert shown["b"]["why"].startswith("not enough host memory to suspend it: 160")
    assert host.home("b").pinned == "", (
        "that may be over any time, and is not written down"
    )


def test_who_could_not_come_back_beside_one_that_stays_is_shown_with_that_reason() -> (
    None
):
    host = Host()
    host.start("a", "1/2")
    kept = host.start("b", "1/2")
    host.broker.set_pinned(kept.id, True)
    text = Service(host.broker).call("leases", {}, Caller(user="ann", uid=1000))[
        "leases"
    ]
    whys = {lease["holder"]["id"]: lease["residence"]["why"] for lease in text}
    assert whys["b"] == PINNED_BY_USER
    assert whys["a"].startswith("it could not be resumed: that takes ")


@pytest.mark.parametrize("has_ended", [False, True])
def test_who_is_suspended_is_not_charged_for_the_room_that_others_have(
    has_ended: bool,
) -> None:
    host = Host()
    lease = host.start("a")
    host.turn(3600.0)
    host.broker.request_action(lease.id, RequestedAction.SUSPEND)
    host.move()
    host.turn(5 * 3600.0)
    host.broker.begin_cell(lease.id)
    host.move()
    host.turn(1800.0)
    if has_ended:
        host.broker.release(lease.id, lease.token)
    snapshot, now = host.broker.snapshot(), host.clock.now
    standing = FairShare(
        snapshot.policy, snapshot.inventory, snapshot.leases, snapshot.accounts, (), now
    )
    whole = snapshot.policy.half_life_seconds
    assert standing._users_past["default", "ann"] == pytest.approx(
        decayed_use(Fraction(1), 0, 5400, 5400, whole)
    )


def test_a_process_is_told_how_much_of_the_host_it_may_suspend_into() -> None:
    policy = SuspendPolicy(host_share=0.4, host_bytes=128 * GIB)
    host = Host(suspend=policy)
    told = from_environment(host.broker.prepare(host.start("k-1")).environment)
    assert (told.host_share, told.host_bytes) == (0.4, 128 * GIB)
    without = Host(suspend=None)
    without.ask("k-1")
    prepared = without.broker.prepare(without.lease("k-1"))
    assert to_environment(policy).keys().isdisjoint(prepared.environment)
