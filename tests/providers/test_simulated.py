"""Simulated devices: the table, and that they behave as told."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import (
    Device,
    Enforcement,
    Inventory,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.device_state import DeviceState, StatePhase
from jupyter_aistack.core.model.lease import LeaseState
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.exceptions import InvalidRequest, PrepareFailed
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock
from tests.fakes.measuring import device_usage, sample_of, usage

NOBODY: frozenset[int] = frozenset()


def share(device: Device, fraction: str = "1/2") -> Slice:
    part = Fraction(fraction)
    return Slice(
        device_id=device.id,
        kind=SliceKind.SHARE,
        fraction=part,
        memory_bytes=int(part * device.memory_bytes),
        uuid=device.id,
    )


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("1xA100-40GB", ["NVIDIA A100-40GB (simulated)"]),
        (
            "2xH200-141GB+1xL4-24GB",
            ["NVIDIA H200-141GB (simulated)"] * 2 + ["NVIDIA L4-24GB (simulated)"],
        ),
        (
            " 1xL4-24GB + 1xT4-16GB ",
            ["NVIDIA L4-24GB (simulated)", "NVIDIA T4-16GB (simulated)"],
        ),
    ],
)
def test_a_table_becomes_devices_in_its_order(table: str, names: list[str]) -> None:
    devices = SimulatedProvider(table).discover("box")
    assert [d.name for d in devices] == names
    assert [d.index for d in devices] == list(range(len(names)))
    assert len({d.id for d in devices}) == len(names)
    assert all(d.simulated for d in devices)


def test_devices_have_the_memory_and_multiprocessors_of_their_model() -> None:
    device = SimulatedProvider("8xH100-80GB").discover("box")[7]
    assert (device.memory_bytes, device.multiprocessors) == (80 * GIB, 132)


def test_the_same_table_gives_the_same_devices_to_every_broker() -> None:
    entry, other = (SimulatedProvider("2xH100-80GB").discover("box") for _ in range(2))
    assert entry == other
    assert {d.id for d in entry}.isdisjoint(
        d.id for d in SimulatedProvider("2xH100-80GB").discover("other")
    )


def test_a_mig_table_is_granted_by_instance_only() -> None:
    device = SimulatedProvider("1xH200-141GB:mig=1g.18gb*7").discover("box")[0]
    assert [m.profile for m in device.mig] == ["1g.18gb"] * 7
    assert not device.is_shareable
    assert sum(m.memory_bytes for m in device.mig) <= device.memory_bytes
    placed = place(parse_spec("1g.18gb"), Inventory(host="box", devices=(device,)), ())
    assert isinstance(placed, tuple)
    assert placed[0].kind is SliceKind.MIG


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "write it as 8xH100-80GB"),
        ("H100", "write it as 8xH100-80GB"),
        ("1xH100-80GB+", "write it as 8xH100-80GB"),
        ("0xH100-80GB", "at least one device"),
        ("1xH100-0GB", "at least one device"),
        ("1xFPGA-8GB", "models known are A10, A100"),
        ("9999xL4-24GB", "at most 1024"),
        ("1xH200-141GB:mig=1g.18gb*8", "write it as"),
        ("1xH200-141GB:mig=3g.71gb*3", "do not fit on 141 GB"),
        ("1xH200-141GB:mig=1g.1gb*1", "do not fit on 141 GB"),
    ],
)
def test_a_bad_table_names_the_field_and_what_is_allowed(
    table: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"^providers: ") as caught:
        SimulatedProvider(table)
    assert words in caught.value.message
    assert caught.value.facts == {"field": "providers"}


PARTS = st.sampled_from(
    [
        "1",
        "0",
        "7",
        "80",
        "141",
        "x",
        "H100",
        "H200",
        "-",
        "GB",
        "+",
        ":mig=",
        "1g.",
        "18gb",
        "*",
        " ",
        "é",
    ]
)


@given(st.lists(PARTS, max_size=12).map("".join))
def test_any_text_is_a_table_or_an_invalid_request(text: str) -> None:
    with contextlib.suppress(InvalidRequest):  # anything else would be a bug
        assert SimulatedProvider(text).discover("box")


def test_prepare_gives_nothing_real(lease) -> None:
    provider = SimulatedProvider("1xH100-80GB")
    device = provider.discover("box")[0]
    prepared = provider.prepare(lease(share(device)), {device.id: device})
    assert prepared.environment == {
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "AISTACK_SIMULATED": "1",
    }
    assert prepared.enforced_by is Enforcement.SIMULATED
    assert prepared.memory_limit_bytes == 40 * GIB
    assert prepared.expects.is_empty


def test_usage_follows_leases_and_is_the_same_each_time(lease) -> None:
    provider = SimulatedProvider("1xH100-80GB")
    device = provider.discover("box")[0]
    held = {"l-1": lease(share(device))}
    used = usage(provider, held, {"l-1": NOBODY})["l-1"]
    assert used.memory_bytes == 35 * GIB
    assert used.utilization is not None
    assert 0.5 <= used.utilization <= 0.95
    assert (
        used
        == usage(provider, held, {"l-1": NOBODY})["l-1"]
        == usage(provider, held, {"l-1": NOBODY})["l-1"]
    )


def test_a_suspended_lease_uses_nothing(lease) -> None:
    provider = SimulatedProvider("1xH100-80GB")
    parked = replace(
        lease(share(provider.discover("box")[0])), state=LeaseState.SUSPENDED
    )
    used = usage(provider, {"l-1": parked}, {"l-1": NOBODY})["l-1"]
    assert (used.memory_bytes, used.utilization) == (0, 0.0)


def test_a_device_is_as_busy_as_its_leases(lease) -> None:
    clock = ManualClock()
    provider = SimulatedProvider("2xH100-80GB", clock=clock)
    first, second = provider.discover("box")
    devices = {first.id: first, second.id: second}
    held = {"l-1": lease(share(first))}
    used = sample_of(provider, held, {}, devices).device_usage()
    assert (used[first.id].memory_bytes, used[second.id].memory_bytes) == (35 * GIB, 0)
    assert used[second.id].power_watts == 70.0
    assert used[first.id].power_watts > 70.0  # type: ignore[operator]
    ended = {"l-1": replace(lease(share(first)), state=LeaseState.ENDED)}
    after = sample_of(provider, ended, {}, devices).device_usage()
    assert after[first.id].memory_bytes == 0


def test_energy_is_power_over_time() -> None:
    clock = ManualClock()
    provider = SimulatedProvider("1xH100-80GB", clock=clock)
    devices = {d.id: d for d in provider.discover("box")}
    before = next(iter(device_usage(provider, devices).values())).energy_joules
    clock.advance(10)
    after = next(iter(device_usage(provider, devices).values())).energy_joules
    assert (before, after) == (0.0, 700.0)


def test_devices_fail_and_recover_on_demand(lease) -> None:
    provider = SimulatedProvider("2xH100-80GB")
    first, second = provider.discover("box")
    provider.fail(first.id, "fell off the bus")
    failed, healthy = provider.discover("box")
    assert (failed.problem, healthy.problem) == ("fell off the bus", "")
    with pytest.raises(PrepareFailed, match="fell off the bus"):
        provider.prepare(lease(share(first)), {failed.id: failed, second.id: second})
    provider.recover()
    assert provider.discover("box") == (first, second)


def test_prepare_fails_on_demand(lease) -> None:
    provider = SimulatedProvider("1xH100-80GB")
    device = provider.discover("box")[0]
    provider.fail_prepare("no")
    with pytest.raises(PrepareFailed, match="no"):
        provider.prepare(lease(share(device)), {device.id: device})
    provider.recover()
    assert provider.prepare(lease(share(device)), {device.id: device})


@pytest.mark.parametrize(
    ("phase", "gibibytes"),
    [
        (StatePhase.RESIDENT, 45),
        (StatePhase.PARKING, 45),
        (StatePhase.PARKED, 80),
        (StatePhase.RESTORING, 45),
        (StatePhase.LOST, 80),
    ],
)
def test_what_is_free_follows_where_the_state_of_leases_is(
    lease, phase: StatePhase, gibibytes: int
) -> None:
    provider = SimulatedProvider("1xH100-80GB")
    (device,) = provider.discover("box")
    assert device.free_bytes == 80 * GIB
    held = replace(lease(share(device)), residence=DeviceState(phase=phase))
    provider.has_moved(held)
    assert provider.discover("box")[0].free_bytes == gibibytes * GIB
    assert provider.simulated_state(held) == 35 * GIB
    provider.unprepare(held)
    assert provider.discover("box")[0].free_bytes == 80 * GIB
