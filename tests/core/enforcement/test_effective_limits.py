"""What leases with a ceiling may use: never more than there is, never less than they were
granted.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.enforcement.effective_limits import (
    FOREIGN_STEP,
    device_limits,
)
from jupyter_aistack.core.model.device import Device, SliceKind
from jupyter_aistack.core.model.device_state import DeviceState, StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.units import GIB
from tests.fakes.ceilings import CPU, GPU, a_lease, quarter, share_of_cpu, share_of_gpu


def test_a_lease_alone_may_use_all_up_to_its_ceiling() -> None:
    limits = device_limits(GPU, [quarter(1, "3/4")])
    assert limits["l-1"].fraction == Fraction(3, 4)
    assert limits["l-1"].memory_bytes == 60 * GIB


def test_a_guarantee_of_another_is_not_divided() -> None:
    limits = device_limits(GPU, [quarter(1, "1/1"), quarter(2)])
    assert limits.keys() == {"l-1"}
    assert limits["l-1"].fraction == Fraction(3, 4)


def test_what_is_free_is_divided_in_proportion_to_the_guarantees() -> None:
    half = a_lease(2, [share_of_gpu(Fraction(1, 2))], "1/1")
    eighth = a_lease(1, [share_of_gpu(Fraction(1, 8))], "1/1")
    limits = device_limits(GPU, [eighth, half])
    assert limits["l-1"].fraction == Fraction(1, 8) + Fraction(3, 8) * Fraction(1, 5)
    assert limits["l-2"].fraction == Fraction(1, 2) + Fraction(3, 8) * Fraction(4, 5)


def test_what_a_low_ceiling_leaves_is_the_others() -> None:
    limits = device_limits(GPU, [quarter(1, "3/8"), quarter(2, "1/1")])
    assert limits["l-1"].fraction == Fraction(3, 8)
    assert limits["l-2"].fraction == Fraction(5, 8)


def test_memory_of_others_is_not_divided_and_unknown_memory_neither() -> None:
    used = replace(GPU, foreign_memory_bytes=FOREIGN_STEP + 1)
    limits = device_limits(used, [quarter(1, "1/1")])
    assert limits["l-1"].memory_bytes == GPU.memory_bytes - 2 * FOREIGN_STEP

    unknown = replace(GPU, foreign_memory_bytes=None)
    limits = device_limits(unknown, [quarter(1, "1/1")])
    assert limits["l-1"].memory_bytes == GPU.memory_bytes // 4


def test_a_suspended_lease_leaves_its_guarantee_until_it_is_wanted_back() -> None:
    away = quarter(
        2,
        state=LeaseState.SUSPENDED,
        residence=DeviceState(phase=StatePhase.PARKED),
    )
    elastic = quarter(1, "1/1")
    assert device_limits(GPU, [elastic, away])["l-1"].fraction == 1
    back = device_limits(GPU, [elastic, away], frozenset({"l-2"}))
    assert back["l-1"].fraction == Fraction(3, 4)


def test_a_lease_that_is_torn_down_keeps_what_it_could_use_and_grows_no_more() -> None:
    half = SliceLimit(device_id=GPU.id, fraction=Fraction(1, 2), memory_bytes=40 * GIB)
    going = quarter(1, "1/1", state=LeaseState.RELEASING, limits=(half,))
    limits = device_limits(GPU, [going, quarter(2, "1/1")])
    assert limits.keys() == {"l-2"}
    assert limits["l-2"].fraction == Fraction(1, 2)
    assert limits["l-2"].memory_bytes == 40 * GIB


def test_cores_are_its_own_and_those_that_nobody_has() -> None:
    first = a_lease(1, [share_of_cpu(0, 1)], "1/1")
    second = a_lease(2, [share_of_cpu(4)])
    limits = device_limits(CPU, [first, second])
    assert limits["l-1"].cores == (0, 1, 2, 3, 5, 6, 7)
    low = replace(first, up_to=Fraction(3, 8))
    assert device_limits(CPU, [low, second])["l-1"].cores == (0, 1, 2)


def test_what_it_has_of_the_host_beside_a_gpu_has_no_ceiling() -> None:
    both = a_lease(1, [share_of_gpu(Fraction(1, 4)), share_of_cpu(0, 1)], "1/1")
    assert device_limits(CPU, [both]) == {}
    assert device_limits(GPU, [both])["l-1"].fraction == 1


_FRACTIONS = st.sampled_from([Fraction(n, 24) for n in range(1, 25)])


@st.composite
def _leases_on(draw: st.DrawFn, device: Device) -> list[Lease]:
    """Leases whose guarantees fit on a device, in any order."""
    left = Fraction(1)
    free = list(device.cores)
    leases = []
    for token in range(1, draw(st.integers(1, 6)) + 1):
        fraction = min(draw(_FRACTIONS), left)
        count = int(fraction * len(device.cores))
        if not fraction or (device.cores and not count):
            break
        left -= fraction
        slice_ = share_of_gpu(fraction, device)
        if device.cores:
            cores = tuple(free[:count])
            free = free[count:]
            slice_ = replace(slice_, kind=SliceKind.CPU, cores=cores)
        ceiling = draw(st.none() | _FRACTIONS)
        up_to = "" if ceiling is None else str(max(ceiling, fraction))
        leases.append(a_lease(token, [slice_], up_to))
    return draw(st.permutations(leases))


@pytest.mark.parametrize("device", [GPU, CPU], ids=["gpu", "cpu"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_limits_are_within_guarantee_ceiling_and_device(
    device: Device, data: st.DataObject
) -> None:
    leases = data.draw(_leases_on(device))
    limits = device_limits(device, leases)
    shares = Fraction(0)
    memory = 0
    cores: list[int] = []
    for lease in leases:
        (granted,) = lease.slices
        limit = limits.get(lease.id)
        if limit is None:
            assert lease.up_to is None
            limit = SliceLimit(
                device_id=device.id,
                fraction=granted.fraction,
                memory_bytes=granted.memory_bytes,
                cores=granted.cores,
            )
        ceiling = lease.up_to or granted.fraction
        assert granted.fraction <= limit.fraction <= ceiling
        most_bytes = max(granted.memory_bytes, int(ceiling * device.memory_bytes))
        assert granted.memory_bytes <= limit.memory_bytes <= most_bytes
        assert set(granted.cores) <= set(limit.cores) <= set(device.cores)
        assert len(limit.cores) <= max(
            len(granted.cores), int(ceiling * len(device.cores))
        )
        shares += limit.fraction
        memory += limit.memory_bytes
        cores += limit.cores
    assert shares <= 1
    assert memory <= device.memory_bytes
    assert len(cores) == len(set(cores))
    again = data.draw(st.permutations(leases))
    assert device_limits(device, again) == limits


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nothing_is_left_that_a_ceiling_could_take(data: st.DataObject) -> None:
    leases = data.draw(_leases_on(GPU))
    limits = device_limits(GPU, leases)
    used = sum(
        (
            limits[lease.id].fraction
            if lease.id in limits
            else lease.slices[0].fraction
            for lease in leases
        ),
        Fraction(0),
    )
    hungry = [
        lease
        for lease in leases
        if lease.up_to is not None and limits[lease.id].fraction < lease.up_to
    ]
    assert not hungry or used == 1
