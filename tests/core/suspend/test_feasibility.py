"""Notebooks side by side under a memory budget: who goes, who comes back, and that
nobody waits for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.model.device_state import (
    DeviceState,
    DisplayState,
    StatePhase,
    display_state,
)
from jupyter_aistack.core.model.plan import TransferDirection
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.suspend.feasibility import (
    TransferStep,
    why_not_admitted,
    why_not_suspendable,
)
from jupyter_aistack.core.suspend.model import (
    DeviceMemory,
    HostMemory,
    SuspendCandidate,
    host_capacity,
    needed_bytes,
    promised_bytes,
    restore_bytes,
    retry_at,
)
from jupyter_aistack.core.suspend.transfers import plan_transfers

GB = 10**9
BUDGET = 80 * GB


def tenant(name: str, gigabytes: int = 40, **facts: object) -> SuspendCandidate:
    known = {"devices": ("G0",), "memory_bytes": gigabytes * GB, **facts}
    return SuspendCandidate(lease_id=name, **known)  # type: ignore[arg-type]


def bytes_on(house: HostMemory, device: str) -> int:
    """What the tenants of a device take of it."""
    return sum(
        candidate.memory_bytes
        for candidate in house.candidates
        if candidate.is_on_device and device in candidate.devices
    )


def house(
    *tenants: SuspendCandidate, host: int = 1000, budget: int = BUDGET
) -> HostMemory:
    """A host whose devices hold exactly what their tenants have there."""
    ids = {device for each in tenants for device in each.devices} | {"G0"}
    bare = HostMemory(devices={}, candidates=tenants, host_bytes=host * GB)
    taken = {device: bytes_on(bare, device) for device in ids}
    devices = {
        device: DeviceMemory(
            budget_bytes=budget, free_bytes=max(0, budget - taken[device])
        )
        for device in ids
    }
    return replace(bare, devices=devices)


def moves(host: HostMemory, now: float = 1000.0) -> list[tuple[str, str]]:
    return [
        (operation.direction.value, operation.lease_id)
        for operation in plan_transfers(host, now)
    ]


WAITS = {"phase": StatePhase.PARKED, "wanted_at": 900.0}


def test_nobody_moves_while_nobody_waits_and_nobody_is_long_idle() -> None:
    assert moves(house(tenant("a"), tenant("b"))) == []


def test_the_least_recently_used_makes_room() -> None:
    box = house(
        tenant("a", active_at=500.0),
        tenant("b", 35, active_at=400.0),
        tenant("c", 30, **WAITS),
    )
    assert moves(box) == [("suspend", "b")]


def test_who_waits_comes_back_as_soon_as_its_bytes_are_free() -> None:
    assert moves(house(tenant("a", 30), tenant("c", 40, **WAITS))) == [("resume", "c")]
    tight = house(
        tenant("a", 30, active_at=999.0), tenant("c", 48, **WAITS)
    )  # 48 fit, 48 and the margin do not
    assert moves(tight) == []


def test_what_the_driver_says_counts_beside_the_budget() -> None:
    box = house(tenant("c", **WAITS))
    foreign = replace(
        box,
        devices={"G0": DeviceMemory(budget_bytes=BUDGET, free_bytes=42 * GB)},
        policy=SuspendPolicy(context_bytes=GB // 2),
    )
    assert moves(foreign) == []
    assert moves(
        replace(
            box, devices={"G0": DeviceMemory(budget_bytes=BUDGET, free_bytes=43 * GB)}
        )
    ) == [("resume", "c")]


@pytest.mark.parametrize(
    "facts",
    [
        {"is_busy": True},
        {"pinned": "it uses managed memory"},
        {"active_at": 990.0},
        {"failures": 3, "failed_at": 980.0},
        {"phase": StatePhase.RESTORING},
    ],
    ids=["busy", "pinned", "just used", "just failed", "moving"],
)
def test_who_must_be_left_alone_is(facts: dict[str, object]) -> None:
    box = house(tenant("a", 60, **facts), tenant("c", **WAITS))
    assert moves(box) == []


def test_nobody_is_parked_in_vain() -> None:
    stays = tenant("busy", 50, is_busy=True)
    assert moves(house(tenant("a", 20), stays, tenant("c", 40, **WAITS))) == []
    assert (
        moves(house(tenant("a", 60), tenant("c", 40, **WAITS), host=99)) == []
    )  # 40 are parked, 60 more do not fit


def test_one_move_at_a_time_on_each_device() -> None:
    box = house(tenant("a", 30), tenant("b", 30), tenant("c", 70, **WAITS))
    assert moves(box) == [("suspend", "a")]
    assert (
        moves(
            house(
                tenant("a", 30, phase=StatePhase.PARKING),
                tenant("b", 30),
                tenant("c", 70, **WAITS),
            )
        )
        == []
    )


def test_later_ones_do_not_pass_who_waits_for_a_running_cell() -> None:
    busy, later = (
        tenant("busy", 60, is_busy=True),
        tenant("d", 5, phase=StatePhase.PARKED, wanted_at=950.0),
    )
    assert moves(house(busy, tenant("c", **WAITS), later)) == []


def test_later_ones_pass_who_waits_for_what_does_not_end_by_itself() -> None:
    pinned, later = (
        tenant("pinned", 60, pinned="the user said so"),
        tenant("d", 5, phase=StatePhase.PARKED, wanted_at=950.0),
    )
    assert moves(house(pinned, tenant("c", **WAITS), later)) == [("resume", "d")]


def test_who_is_idle_for_long_goes_though_nobody_waits() -> None:
    assert moves(house(tenant("a"), tenant("b", active_at=900.0)), now=1800.0) == [
        ("suspend", "a")
    ]
    assert moves(house(tenant("a"), host=30), now=1800.0) == []


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"is_busy": True, "pinned": "why"}, DisplayState.HELD),
        ({}, DisplayState.WARM),
        ({"phase": StatePhase.PARKING}, DisplayState.WARM),
        ({"phase": StatePhase.RESTORING}, DisplayState.SUSPENDED),
        ({"phase": StatePhase.PARKED}, DisplayState.SUSPENDED),
        ({"pinned": "why"}, DisplayState.PINNED),
        ({"phase": StatePhase.LOST, "is_busy": True}, DisplayState.LOST),
    ],
)
def test_how_a_lease_is_displayed(facts: dict[str, Any], shown: DisplayState) -> None:
    assert display_state(DeviceState(**facts)) is shown


def test_each_failure_doubles_the_pause_up_to_a_limit() -> None:
    policy = SuspendPolicy()
    pauses = [
        retry_at(tenant("a", failures=n, failed_at=100.0), policy) - 100.0
        for n in (1, 2, 3, 50, 5000)
    ]
    assert pauses == [10.0, 20.0, 40.0, 600.0, 600.0]


def test_a_restore_needs_the_context_and_a_margin_and_the_host_keeps_its_share() -> (
    None
):
    measured = SuspendPolicy(context_bytes=GB // 2)
    assert restore_bytes(tenant("a", 40, state_bytes=10 * GB), measured) == 11 * GB
    assert host_capacity(60 * GB, suspended_bytes=40 * GB, share=0.6) == 20 * GB
    assert host_capacity(10 * GB, suspended_bytes=40 * GB, share=0.6) == 0


def test_who_could_never_come_back_is_pinned() -> None:
    assert why_not_suspendable(house(), tenant("a", 40)) == ""
    assert (
        why_not_suspendable(house(), tenant("a", 80)) == ""
    )  # alone, what was there before fits again
    stays = house(tenant("b", 10, pinned="MPS"))
    assert why_not_suspendable(stays, tenant("a", 68)).startswith(
        "it could not be resumed: that takes"
    )
    assert why_not_suspendable(house(tenant("b")), tenant("a", pinned="MPS")) == "MPS"
    assert "not enough host memory to suspend it" in why_not_suspendable(
        house(tenant("b"), host=70), tenant("a")
    )


def test_a_pinned_one_may_not_take_what_another_needs_to_come_back() -> None:
    box = house(tenant("a", 40, phase=StatePhase.PARKED))
    assert why_not_admitted(box, tenant("b", 30, pinned="MPS")) == ""
    assert "G0 is promised to others" in why_not_admitted(
        box, tenant("b", 40, pinned="MPS")
    )
    assert why_not_admitted(box, tenant("b", 40)) == ""


# -- whatever happens ------------------------------------------------------------------

sizes = st.integers(1, 80)
homes = st.sets(st.sampled_from(["G0", "G1", "G2"]), min_size=1, max_size=3).map(
    lambda ids: tuple(sorted(ids))
)
newcomers = st.lists(st.tuples(sizes, homes, st.booleans()), min_size=1, max_size=8)
happenings = st.lists(
    st.tuples(
        st.sampled_from(["want", "end", "moved", "failed", "later"]), st.integers(0, 7)
    ),
    max_size=60,
)


class Life:
    """Tenants whose cells begin and end, and whose moves take as long as the example
    wants.
    """

    def __init__(self, host: int) -> None:
        self.now, self.host = 0.0, host
        self.tenants: dict[str, SuspendCandidate] = {}

    def house(self) -> HostMemory:
        ids = ("G0", "G1", "G2")
        bare = HostMemory(
            devices={},
            candidates=tuple(self.tenants.values()),
            host_bytes=self.host * GB,
        )
        taken = {device: bytes_on(bare, device) for device in ids}
        return replace(
            bare,
            devices={
                d: DeviceMemory(budget_bytes=BUDGET, free_bytes=BUDGET - taken[d])
                for d in ids
            },
        )

    def move_in(
        self, number: int, size: int, devices: tuple[str, ...], is_pinned: bool
    ) -> None:
        """Pinned ones are resident from the beginning, all others parked."""
        new = tenant(
            f"t{number}",
            size,
            devices=devices,
            pinned="by its user" if is_pinned else "",
        )
        new = replace(new, pinned=why_not_suspendable(self.house(), new))
        if not why_not_admitted(self.house(), new):
            self.tenants[new.lease_id] = (
                new if new.pinned else replace(new, phase=StatePhase.PARKED)
            )

    def happen(self, kind: str, candidate: SuspendCandidate) -> None:
        if kind == "want":
            if candidate.phase is StatePhase.RESIDENT:
                self.put(candidate, is_busy=True, active_at=self.now)
            elif candidate.wanted_at is None:
                self.put(candidate, wanted_at=self.now)
        elif kind == "end" and candidate.is_busy:
            self.put(candidate, is_busy=False, active_at=self.now)
        elif kind == "moved" and candidate.phase is StatePhase.PARKING:
            self.put(candidate, phase=StatePhase.PARKED, failures=0)
        elif kind == "failed" and candidate.phase is StatePhase.PARKING:
            self.put(
                candidate,
                phase=StatePhase.RESIDENT,
                failures=candidate.failures + 1,
                failed_at=self.now,
            )
        elif kind == "moved" and candidate.phase is StatePhase.RESTORING:
            self.put(
                candidate,
                phase=StatePhase.RESIDENT,
                active_at=self.now,
                is_busy=candidate.wanted_at is not None,
                wanted_at=None,
            )
        elif kind == "later":
            self.now += 45.0

    def put(self, candidate: SuspendCandidate, **facts: object) -> None:
        self.tenants[candidate.lease_id] = replace(candidate, **facts)  # type: ignore[arg-type]

    def turn(self) -> tuple[TransferStep, ...]:
        before, operations = self.house(), plan_transfers(self.house(), self.now)
        for operation in operations:
            entry = self.tenants[operation.lease_id]
            if operation.direction is TransferDirection.RESUME:
                assert entry.phase is StatePhase.PARKED
                devices = [before.devices[device] for device in entry.devices]
                assert all(
                    card.free_bytes >= needed_bytes(entry, card, before.policy)
                    for card in devices
                )
                self.put(entry, phase=StatePhase.RESTORING)
            else:
                assert (entry.phase, entry.is_busy, entry.pinned) == (
                    StatePhase.RESIDENT,
                    False,
                    "",
                )
                self.put(entry, phase=StatePhase.PARKING)
        self.check()
        return operations

    def check(self) -> None:
        now = self.house()
        assert now.suspended_bytes <= now.host_bytes
        for device, card in now.devices.items():
            assert card.free_bytes >= 0
            assert (
                sum(
                    candidate.is_moving
                    for candidate in now.candidates
                    if device in candidate.devices
                )
                <= 1
            )


def lived(
    newcomers: list[tuple[int, tuple[str, ...], bool]],
    happenings: list[tuple[str, int]],
    host: int,
) -> Life:
    """A life in which all this has happened."""
    life = Life(host)
    for number, candidate_for in enumerate(newcomers):
        life.move_in(number, *candidate_for)
    for kind, number in happenings:
        if life.tenants:
            life.happen(kind, list(life.tenants.values())[number % len(life.tenants)])
            life.turn()
    return life


def settle(life: Life) -> None:
    """Let every cell and move end, and time pass, until nothing changes any more."""
    for _ in range(12 * len(life.tenants)):
        for kind in ("moved", "end"):
            for each in list(life.tenants.values()):
                life.happen(kind, each)
        life.now += life.house().policy.longest_retry_seconds
        life.turn()


@settings(max_examples=150, deadline=None)
@given(newcomers=newcomers, happenings=happenings, host=st.integers(0, 400))
def test_never_over_budget_and_nobody_waits_for_ever(
    newcomers: list[tuple[int, tuple[str, ...], bool]],
    happenings: list[tuple[str, int]],
    host: int,
) -> None:
    life = lived(newcomers, happenings, host)
    settle(life)
    assert not [each for each in life.tenants.values() if each.wanted_at is not None]


@settings(max_examples=150, deadline=None)
@given(newcomers=newcomers, happenings=happenings)
def test_where_pins_take_the_room_nobody_waits_for_what_is_free(
    newcomers: list[tuple[int, tuple[str, ...], bool]],
    happenings: list[tuple[str, int]],
) -> None:
    """Pins that come later than the rest may keep somebody out, but who fits beside
    them is not held up by that.
    """
    life = lived(newcomers, happenings, 1000)
    for each in list(life.tenants.values()):
        if each.phase is StatePhase.RESIDENT:
            life.put(each, pinned="by its user", is_busy=False)
        elif each.phase is StatePhase.PARKED and each.wanted_at is None:
            life.put(each, wanted_at=life.now)
    settle(life)
    end = life.house()
    for each in life.tenants.values():
        devices = [end.devices[device] for device in each.devices]
        lacks = any(
            card.free_bytes < promised_bytes(each, card, end.policy) for card in devices
        )
        assert each.wanted_at is None or lacks
