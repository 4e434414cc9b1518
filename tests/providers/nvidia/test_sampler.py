"""Energy and activity as the driver tells them: the real nvidia-ml-py over a fake
driver, changed live.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.accounting.intervals import ProcessLoad
from jupyter_aistack.core.model.device import Enforcement, SliceKind
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.providers.cpu import CPUProvider
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock
from tests.fakes.measuring import loads
from tests.fakes.nvml.states import (
    SETUP,
    gpu,
    h200,
    instance,
    process,
    share,
    slice_of,
)

A, B = frozenset({11, 12}), frozenset({21})


def look(
    child: Any,
    held: dict[str, Any],
    pids: dict[str, frozenset[int]],
    device: Any = None,
) -> ProcessLoad:
    return child(
        "loads(provider, devices, held, pids)['GPU-0']",
        devices={"GPU-0": device or gpu()},
        held=held,
        pids=pids,
    )


def test_the_counter_and_the_activity_of_each_lease_are_read(fake_nvml, lease) -> None:
    state = h200(energy_mj=9000500) + process(11, GIB, sm=30) + process(12, GIB, sm=10)
    child = fake_nvml.python(
        state + process(21, 2 * GIB, sm=20) + process(99, GIB, sm=5), SETUP
    )
    held = {"l-a": lease(share("1/2", gpu())), "l-b": lease(share("1/4", gpu()))}
    result = look(child, held, {"l-a": A, "l-b": B})
    assert result.millijoules == 9000500
    assert result.busy == {"l-a": pytest.approx(0.4), "l-b": pytest.approx(0.2)}
    assert result.others == pytest.approx(0.05)
    assert result.memory == {"l-a": 2 * GIB, "l-b": 2 * GIB}


def test_what_the_driver_does_not_tell_is_missing_and_not_zero(
    fake_nvml, lease
) -> None:
    held = {"l-a": lease(share("1/2", gpu()))}
    mute = "fail nvmlDeviceGetProcessUtilization 3\n" + "".join(
        f"fail nvmlDeviceGet{kind}RunningProcesses_v3 3\n"
        for kind in ("Compute", "Graphics", "MPSCompute")
    )
    child = fake_nvml.python(h200(energy_mj=-1) + process(11, GIB, sm=30) + mute, SETUP)
    assert look(child, held, {"l-a": A}) == ProcessLoad()
    fake_nvml.change(h200(energy_mj=5) + process(11, GIB, sm=30))
    assert look(child, held, {}) == ProcessLoad(
        millijoules=5, others=pytest.approx(0.3)
    ), "whose processes are not known yet"


def test_a_lost_gpu_is_not_metered_and_hides_no_other(fake_nvml, lease) -> None:
    child = fake_nvml.python(h200(0, lost=15) + h200(1, energy_mj=7), SETUP)
    lost = {"GPU-0": replace(gpu(0), problem="fell off the bus"), "GPU-1": gpu(1)}
    assert child("dict(loads(provider, devices, {}, {}))", devices=lost) == {
        "GPU-1": ProcessLoad(millijoules=7, others=0.0)
    }


def test_multiprocessors_that_worked_are_divided_as_time_is(fake_nvml, lease) -> None:
    def state(busy: int, now: int) -> str:
        return (
            h200(gpm_ms=busy)
            + process(11, GIB, sm=60)
            + process(21, GIB, sm=20)
            + f"now {now}\n"
        )

    child = fake_nvml.python(state(0, 0), SETUP)
    held, pids = (
        {"l-a": lease(share("1/2", gpu())), "l-b": lease(share("1/4", gpu()))},
        {"l-a": A, "l-b": B},
    )
    assert look(child, held, pids).busy["l-a"] == pytest.approx(0.6), (
        "two samples make a figure; until then, time"
    )
    fake_nvml.change(state(40 * 2000, 2000))
    result = look(child, held, pids)
    assert (result.busy["l-a"], result.busy["l-b"]) == (
        pytest.approx(0.3),
        pytest.approx(0.1),
    )
    fake_nvml.change("session 2\n" + state(0, 0))
    assert look(child, held, pids).busy["l-a"] == pytest.approx(0.6), (
        "the driver was loaded anew"
    )
    fake_nvml.change("session 2\n" + state(100 * 500, 1000))
    assert look(child, held, pids).busy["l-a"] == pytest.approx(0.375)


def mig_state(first: int, second: int, now: int, sms: int = 16) -> str:
    both = instance(0, gpm_ms=first) + instance(1, gpm_ms=second, sms=sms)
    return h200(mig=1, gpm_ms=0, energy_mj=now) + both + f"now {now}\n"


def test_on_mig_each_instance_has_its_multiprocessors_activity(
    fake_nvml, lease
) -> None:
    child = fake_nvml.python(mig_state(0, 0, 0, 48), SETUP)
    device = child("provider.discover('box')[0]")
    held = {"l-a": lease(slice_of(device, device.mig[0]))}
    first = look(child, held, {"l-a": A}, device)
    assert (first.busy, first.others) == ({}, None)
    fake_nvml.change(mig_state(50 * 4000, 100 * 1000, 4000, 48))
    result = look(child, held, {"l-a": A}, device)
    assert result.busy == {"l-a": pytest.approx(0.5 * 16 / 64)}
    assert result.others == pytest.approx(0.25 * 48 / 64), (
        "an instance that nobody holds"
    )
    assert (result.millijoules, result.estimated) == (4000, frozenset())


def test_what_an_instance_did_for_two_leases_one_after_the_other_is_an_estimate(
    fake_nvml, lease
) -> None:
    child = fake_nvml.python(mig_state(0, 0, 0, 48), SETUP)
    device = child("provider.discover('box')[0]")
    own = lease(slice_of(device, device.mig[0]))
    held = {"l-a": own, "l-b": own, "l-c": lease(slice_of(device, device.mig[1]))}
    look(child, held, {}, device)
    fake_nvml.change(mig_state(50 * 4000, 100 * 1000, 4000, 48))
    result = look(child, held, {}, device)
    assert result.busy["l-a"] == result.busy["l-b"]
    assert result.estimated == {"l-a", "l-b"}


def test_on_mig_without_gpm_activity_is_unknown(fake_nvml, lease) -> None:
    child = fake_nvml.python(h200(mig=1) + instance(0) + process(11, GIB, gi=7), SETUP)
    device = child("provider.discover('box')[0]")
    held = {"l-a": lease(slice_of(device, device.mig[0]))}
    for _ in range(2):
        result = look(child, held, {"l-a": A}, device)
    assert (result.busy, result.others, result.memory) == ({}, None, {"l-a": GIB})


def test_compute_instances_that_share_a_figure_are_told_apart_by_nothing(
    fake_nvml, lease
) -> None:
    def state(busy: int, now: int) -> str:
        parts = {"slices": 2, "cslices": 1, "memory_mb": 33280, "gi": 3, "gpm_ms": busy}
        both = instance(0, ci=0, uuid="MIG-x", **parts) + instance(
            1, ci=1, uuid="MIG-y", **parts
        )
        return h200(mig=1, gpm_ms=0) + both + f"now {now}\n"

    child = fake_nvml.python(state(0, 0), SETUP)
    device = child("provider.discover('box')[0]")
    device = replace(
        device, mig=tuple(replace(each, profile="2g.35gb") for each in device.mig)
    )  # a name is no figure
    held = {"l-a": lease(slice_of(device, device.mig[0]))}
    look(child, held, {"l-a": A}, device)
    fake_nvml.change(state(100 * 1000, 2000))
    result = look(child, held, {"l-a": A}, device)
    assert (result.busy, result.others) == ({}, pytest.approx(0.5))


def test_samples_are_freed_once_the_next_are_there(fake_nvml) -> None:
    child = fake_nvml.python(h200(gpm_ms=0) + "now 0\n", SETUP)
    child.run("asked = []\nquery = provider._nvml.query")
    child.run(
        "provider._nvml.query = lambda f, *a, **k: (asked.append(f), query(f, *a, **k))[1]"
    )
    for number in range(1, 5):
        fake_nvml.change(h200(gpm_ms=number * 1000) + f"now {number * 1000}\n")
        look(child, {}, {})
    assert child(
        "(asked.count('nvmlGpmSampleAlloc'), asked.count('nvmlGpmSampleFree'))"
    ) == (4, 3)


def test_an_older_driver_without_gpm_is_no_error(fake_nvml, lease) -> None:
    child = fake_nvml.python(
        h200(gpm_ms=5)
        + "fail nvmlGpmQueryDeviceSupport 13\n"
        + process(11, GIB, sm=10),
        SETUP,
    )
    assert look(child, {"l-a": lease(share("1", gpu()))}, {"l-a": A}).busy == {
        "l-a": pytest.approx(0.1)
    }


SERVE = """
provider._sampler._servers_among = lambda pids: frozenset({30}) & frozenset(pids)
"""


def by_mps(lease: Any, fraction: str) -> Any:
    return replace(lease(share(fraction, gpu())), enforced_by=Enforcement.L1)


def test_the_work_of_an_mps_server_is_its_one_clients(fake_nvml, lease) -> None:
    client = process(11, GIB, type="M", sm=40)
    state = h200(energy_mj=1) + client + process(30, 0, sm=80)
    child = fake_nvml.python(state, SETUP + SERVE)
    held = {"l-a": by_mps(lease, "1/2"), "l-b": by_mps(lease, "1/4")}
    pids = {"l-a": A, "l-b": B}
    result = look(child, held, pids)
    assert result.busy == {"l-a": pytest.approx(0.8), "l-b": 0.0}
    assert (result.others, result.memory) == (0.0, {"l-a": GIB, "l-b": 0})
    assert result.estimated == frozenset(), "it is all of one lease"
    fake_nvml.change(state + process(21, GIB, type="M"))
    result = look(child, held, pids)
    assert result.busy == {"l-a": pytest.approx(1.6 / 3), "l-b": pytest.approx(0.8 / 3)}
    assert result.estimated == {"l-a", "l-b"}
    used = child(
        "usage(provider, held, pids, {'GPU-0': device})",
        held=held,
        pids=pids,
        device=gpu(),
    )
    assert {i: each.utilization for i, each in used.items()} == {
        "l-a": None,
        "l-b": None,
    }, "an estimate is charged, and shown nowhere as what was measured"
    fake_nvml.change(state)
    used = child(
        "usage(provider, held, pids, {'GPU-0': device})",
        held={"l-a": held["l-a"]},
        pids=pids,
        device=gpu(),
    )
    assert used["l-a"].utilization == pytest.approx(0.8)


def test_the_last_sample_of_a_process_that_does_nothing_is_no_work(
    fake_nvml, lease
) -> None:
    state = h200() + process(11, GIB, sm=90, sm_age_ms=60_000) + process(12, 0, sm=20)
    child = fake_nvml.python(state, SETUP)
    held = {"l-a": lease(share("1/2", gpu()))}
    assert look(child, held, {"l-a": A}).busy == {"l-a": pytest.approx(0.2)}


def test_figures_that_are_not_available_are_none(fake_nvml) -> None:
    none32 = 0xFFFFFFFF
    state = h200(util=none32, power_mw=none32, energy_mj=2**64 - 1)
    child = fake_nvml.python(state + process(11, -1, sm=none32), SETUP)
    figures = child("device_usage(provider, {'GPU-0': device})", device=gpu())["GPU-0"]
    assert (figures.utilization, figures.power_watts, figures.energy_joules) == (
        None,
        None,
        None,
    )


def test_on_mig_with_gpm_an_instances_activity_is_its_leases(fake_nvml, lease) -> None:
    child = fake_nvml.python(mig_state(0, 0, 0), SETUP)
    device = child("provider.discover('box')[0]")
    held = {"l-a": lease(slice_of(device, device.mig[0]))}
    ask = "usage(provider, held, {'l-a': frozenset({11})}, {'GPU-0': device})"
    assert child(ask, held=held, device=device)["l-a"].utilization is None
    fake_nvml.change(mig_state(50 * 4000, 0, 4000))
    again = child(ask, held=held, device=device)["l-a"]
    assert again.utilization == pytest.approx(0.5)


# -- other devices ---------------------------------------------------------------------


def test_a_cpu_has_activity_and_no_counter(lease) -> None:

    clock = ManualClock()
    provider = CPUProvider(clock=clock)
    (device,) = provider.discover("box")
    slice_ = replace(
        share("1/2", gpu()),
        device_id=device.id,
        cores=device.cores[:1],
        kind=SliceKind.CPU,
        uuid="",
    )
    held, pids = {"l-a": lease(slice_)}, {"l-a": frozenset({os.getpid()})}
    first = loads(provider, {device.id: device}, held, pids)[device.id]
    assert (first.millijoules, first.busy) == (None, {})
    assert first.memory["l-a"] > 0
    sum(range(2_000_000))
    clock.advance(1.0)
    provider.sample({device.id: device}, held, pids, since=0.0)  # cuts nobody short
    second = loads(provider, {device.id: device}, held, pids)[device.id]
    assert 0 < second.busy["l-a"] <= 0.5


def test_a_simulated_device_has_nothing_to_meter() -> None:
    provider = SimulatedProvider("1xH100-80GB")
    (device,) = provider.discover("box")
    assert loads(provider, {device.id: device}, {}, {}) == {device.id: ProcessLoad()}
