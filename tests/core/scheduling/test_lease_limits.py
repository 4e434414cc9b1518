"""Limits in a plan: lowered before it grants, raised after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.enforcement.effective_limits import device_limits
from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.device_state import DeviceState, StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.limit import LOWERED_GRACE_SECONDS, SliceLimit
from jupyter_aistack.core.model.plan import (
    End,
    Grant,
    Plan,
    SetLimits,
    Snapshot,
    TransferAction,
    TransferDirection,
)
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.lease_limits import with_limits
from tests.fakes.ceilings import (
    CPU,
    GPU,
    a_lease,
    quarter,
    share_of_cpu,
    share_of_gpu,
)
from tests.fakes.world import ask, gpus


def snapshot_of(*leases: Lease, devices: Sequence[Device] = (GPU,)) -> Snapshot:
    inventory = Inventory(host="testbox", devices=tuple(devices))
    return Snapshot(inventory=inventory, leases=leases, version=7)


def limits_of(plan: Plan) -> dict[str, Fraction]:
    """The share of each lease whose limits a plan sets."""
    return {
        action.lease_id: action.limits[0].fraction
        for action in plan.actions
        if isinstance(action, SetLimits)
    }


def test_a_plan_lowers_before_it_grants_and_raises_after_it() -> None:
    second = gpus(2)[1]
    whole = SliceLimit(
        device_id=GPU.id, fraction=Fraction(1), memory_bytes=GPU.memory_bytes
    )
    lowered = quarter(1, "1/1", limits=(whole,))
    raised = a_lease(2, [share_of_gpu(Fraction(1, 4), second)], "1/2")
    grant = Grant(
        request=ask("new", up_to=Fraction(1, 2)),
        slices=(share_of_gpu(Fraction(1, 4)),),
        expires_at=1e9,
    )
    todo = Plan(version=7, actions=(grant,))
    planned = with_limits(
        todo, snapshot_of(lowered, raised, devices=(GPU, second)), 100.0
    )
    first, granted, last = planned.actions
    assert isinstance(first, SetLimits)
    assert first.lease_id == "l-1"
    assert first.limits[0].fraction == Fraction(1, 2)
    assert isinstance(granted, Grant)
    assert granted.limits[0].fraction == Fraction(1, 2)
    assert isinstance(last, SetLimits)
    assert last.lease_id == "l-2"


def test_what_ends_is_divided_at_once() -> None:
    limit = device_limits(GPU, [quarter(1, "1/1"), quarter(2)])["l-1"]
    before = quarter(1, "1/1", limits=(limit,))
    end = End(lease_id="l-2", token=2, outcome=Outcome.RELEASED)
    planned = with_limits(
        Plan(version=7, actions=(end,)), snapshot_of(before, quarter(2)), 100.0
    )
    assert limits_of(planned) == {"l-1": Fraction(1)}


def test_a_plan_without_a_ceiling_is_left_alone() -> None:
    todo = Plan(version=7)
    assert with_limits(todo, snapshot_of(quarter(1)), 100.0) is todo


def test_a_suspended_lease_that_comes_back_has_its_guarantee_again() -> None:
    whole = SliceLimit(
        device_id=GPU.id, fraction=Fraction(1), memory_bytes=GPU.memory_bytes
    )
    away = quarter(
        2,
        state=LeaseState.SUSPENDED,
        residence=DeviceState(phase=StatePhase.PARKED),
    )
    before = snapshot_of(quarter(1, "1/1", limits=(whole,)), away)
    assert with_limits(Plan(version=7), before, 100.0).is_empty
    resume = TransferAction(lease_id="l-2", token=2, direction=TransferDirection.RESUME)
    planned = with_limits(Plan(version=7, actions=(resume,)), before, 100.0)
    assert limits_of(planned) == {"l-1": Fraction(3, 4)}
    assert planned.actions[-1] == resume


def test_limits_that_stand_already_are_no_action() -> None:
    limit = device_limits(GPU, [quarter(1, "1/1")])["l-1"]
    history = replace(limit, lowered_at=1.0, lowered_from_bytes=GPU.memory_bytes)
    settled = quarter(1, "1/1", limits=(history,))
    assert with_limits(Plan(version=7), snapshot_of(settled), 100.0).is_empty


def test_a_device_that_does_not_answer_changes_no_limit() -> None:
    mute = replace(GPU, problem="does not answer")
    whole = SliceLimit(
        device_id=GPU.id, fraction=Fraction(1), memory_bytes=GPU.memory_bytes
    )
    lease = quarter(1, "1/1", limits=(whole,))
    snapshot = snapshot_of(lease, quarter(2), devices=(mute,))
    assert with_limits(Plan(version=7), snapshot, 100.0).is_empty
    gone = snapshot_of(lease, quarter(2), devices=())
    assert with_limits(Plan(version=7), gone, 100.0).is_empty


def test_memory_that_was_lowered_is_left_alone_for_a_while() -> None:
    whole = SliceLimit(
        device_id=GPU.id, fraction=Fraction(1), memory_bytes=GPU.memory_bytes
    )
    lease = quarter(1, "1/1", limits=(whole,))
    planned = with_limits(Plan(version=7), snapshot_of(lease, quarter(2)), 100.0)
    (action,) = planned.actions
    assert isinstance(action, SetLimits)
    (limit,) = action.limits
    assert limit.memory_bytes == 60 * GIB
    assert limit.tolerated_bytes(100.0 + LOWERED_GRACE_SECONDS - 1) == 80 * GIB
    assert limit.tolerated_bytes(100.0 + LOWERED_GRACE_SECONDS) == 60 * GIB

    # Lowered again meanwhile: what was held at first is what is to be given back.
    lease = replace(lease, limits=(limit,))
    leases = (lease, quarter(2), quarter(3))
    again = with_limits(Plan(version=7), snapshot_of(*leases), 110.0).actions[0]
    assert isinstance(again, SetLimits)
    assert again.limits[0].lowered_at == 110.0
    assert again.limits[0].tolerated_bytes(111.0) == 80 * GIB


# -- what others look after ------------------------------------------------------------

WHOLE = SliceLimit(
    device_id=GPU.id, fraction=Fraction(1), memory_bytes=GPU.memory_bytes
)
GRANT = Grant(
    request=ask("new"), slices=(share_of_gpu(Fraction(1, 2)),), expires_at=1e9
)


def test_a_lease_that_others_look_after_is_lowered_for_a_grant_and_never_raised() -> (
    None
):
    elsewhere = frozenset({"l-1"})
    lease = quarter(1, "1/1", limits=(WHOLE,))
    beside = snapshot_of(lease, quarter(2))
    assert with_limits(Plan(version=7), beside, 100.0, elsewhere).is_empty

    granting = Plan(version=7, actions=(GRANT,))
    planned = with_limits(granting, snapshot_of(lease), 100.0, elsewhere)
    assert limits_of(planned) == {"l-1": Fraction(1, 2)}

    low = replace(WHOLE, fraction=Fraction(1, 2), memory_bytes=40 * GIB)
    lease = quarter(1, "1/1", limits=(low,))
    assert with_limits(Plan(version=7), snapshot_of(lease), 100.0, elsewhere).is_empty


def test_a_device_that_others_see_with_other_cores_or_memory_is_theirs_to_divide() -> (
    None
):
    lease = a_lease(1, [share_of_cpu(0, 1)], "1/1")
    fewer = replace(CPU, cores=(0, 1, 2, 3))
    for seen in (replace(CPU, memory_bytes=16 * GIB), replace(fewer, cores=(2, 3))):
        snapshot = snapshot_of(lease, devices=(seen,))
        assert with_limits(Plan(version=7), snapshot, 100.0).is_empty
    same = snapshot_of(lease, devices=(CPU,))
    assert limits_of(with_limits(Plan(version=7), same, 100.0)) == {"l-1": Fraction(1)}
