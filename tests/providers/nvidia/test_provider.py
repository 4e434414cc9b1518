"""GPUs as the driver describes them: the real nvidia-ml-py over a fake driver, changed
live.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Inventory,
    MIGInstance,
)
from jupyter_aistack.core.model.foreign_memory import Holders, with_foreign
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.exceptions import DriverNotFound, PrepareFailed, ProviderError
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from tests.fakes.nvml.states import (
    H200_BYTES,
    SETUP,
    described,
    gpu,
    h200,
    instance,
    process,
    shape,
    share,
    slice_of,
)

# -- what there is ---------------------------------------------------------------------


def test_one_gpu_is_described(fake_nvml) -> None:
    found = fake_nvml.python(h200(), SETUP)("provider.discover('box')")
    assert tuple(replace(device, level=None, why_not=()) for device in found) == (
        Device(
            id="GPU-0",
            host="box",
            kind=DeviceKind.GPU,
            index=0,
            name="NVIDIA H200",
            memory_bytes=H200_BYTES,
            multiprocessors=132,
            vendor="nvidia",
            least_share_bytes=GIB,
        ),
    )


def test_what_is_free_is_told_where_the_driver_tells_it(fake_nvml) -> None:
    idle = fake_nvml.python(h200(), SETUP)("provider.discover('box')[0].free_bytes")
    used = fake_nvml.python(h200(used=3 * GIB), SETUP)(
        "provider.discover('box')[0].free_bytes"
    )
    secret = fake_nvml.python(h200(mig=1, noperm=1) + instance(0), SETUP)(
        "provider.discover('box')[0].free_bytes"
    )
    assert (idle, idle - used, secret) == (H200_BYTES, 3 * GIB, None)


@pytest.mark.parametrize(
    ("capability", "cores", "multiprocessors"),
    [
        ("8.0", 6912, 108),
        ("8.9", 7424, 58),
        ("7.0", 5120, 80),
        ("3.5", 2496, 0),
        ("9.0", 0, 0),
    ],
)
def test_multiprocessors_follow_the_architecture(
    fake_nvml, capability, cores, multiprocessors
) -> None:
    child = fake_nvml.python(h200(cc=capability, cores=cores), SETUP)
    assert child("provider.discover('box')[0].multiprocessors") == multiprocessors


def test_an_answer_that_cannot_be_decoded_is_the_trouble_of_one_gpu(fake_nvml) -> None:
    state = h200(0) + h200(1, name="\udcff\udcfe")
    first, second = fake_nvml.python(state, SETUP)("provider.discover('box')")
    assert (first.problem, first.memory_bytes) == ("", H200_BYTES)
    assert second.problem.startswith(
        "cannot be asked nvmlDeviceGetName (UnicodeDecodeError: "
    )


def test_eight_gpus_keep_their_order(fake_nvml) -> None:
    child = fake_nvml.python("".join(h200(i) for i in range(8)), SETUP)
    assert [(d.index, d.id) for d in child("provider.discover('box')")] == [
        (i, f"GPU-{i}") for i in range(8)
    ]


def test_a_driver_without_gpus_has_none(fake_nvml) -> None:
    child = fake_nvml.python("session 1\n", SETUP)
    assert child("provider.discover('box')") == ()


def test_mig_instances_are_found_over_holes(fake_nvml) -> None:
    state = (
        h200(mig=1)
        + instance(0)
        + instance(2)
        + instance(5, slices=3, memory_mb=71424, sms=48)
    )
    device = fake_nvml.python(state, SETUP)("provider.discover('box')")[0]
    assert device.mig_enabled
    assert device.mig == (
        described("MIG-00", "1g.18gb", 16 * GIB, sms=16, slices=1),
        described("MIG-02", "1g.18gb", 16 * GIB, sms=16, slices=1),
        described("MIG-05", "3g.71gb", 71424 * MIB, sms=48, slices=3),
    )


def test_mig_mode_without_instances_is_no_problem(fake_nvml) -> None:
    device = fake_nvml.python(h200(mig=1), SETUP)("provider.discover('box')")[0]
    assert (device.mig_enabled, device.mig, device.problem, device.is_shareable) == (
        True,
        (),
        "",
        False,
    )


def test_mig_and_whole_gpus_stand_side_by_side(fake_nvml) -> None:
    state = h200(0) + h200(1, mig=1) + instance(0, gpu=1)
    devices = fake_nvml.python(state, SETUP)("provider.discover('box')")
    assert [[m.uuid for m in d.mig] for d in devices] == [[], ["MIG-10"]]
    assert [d.is_shareable for d in devices] == [True, False]


def test_mig_is_found_where_the_gpus_own_memory_is_secret(fake_nvml) -> None:
    state = (
        h200(mig=1, noperm=1)
        + shape(0, "1g.18gb")
        + instance(0, profile="9g.999gb")
        + instance(1)
    )
    device = fake_nvml.python(state, SETUP)("provider.discover('box')")[0]
    assert [m.profile for m in device.mig] == ["1g.18gb", "1g.18gb"]
    assert (device.memory_bytes, device.problem) == (32 * GIB, "")


def test_where_neither_shapes_nor_memory_are_told_the_drivers_label_is_the_name_and_no_more(
    fake_nvml,
) -> None:
    state = (
        h200(mig=1, noperm=1)
        + instance(0, profile="1g.18gb")
        + instance(1, slices=2, profile="odd")
    )
    device = fake_nvml.python(state, SETUP)("provider.discover('box')")[0]
    assert [(m.profile, m.gpu_slices, m.memory_bytes // GIB) for m in device.mig] == [
        ("1g.18gb", 1, 16),
        ("2g.16gb", 2, 16),
    ]


def test_compute_instances_count_their_part_of_the_shared_memory(fake_nvml) -> None:
    state = h200(mig=1) + instance(0, slices=2, cslices=1, memory_mb=33280, sms=16)
    device = fake_nvml.python(state, SETUP)("provider.discover('box')")[0]
    assert (device.mig[0].profile, device.mig[0].memory_bytes) == (
        "1c.2g.35gb",
        16640 * MIB,
    )


def test_variants_of_one_size_are_told_apart_by_their_engines_not_by_the_devices_name(
    fake_nvml,
) -> None:
    shapes = (
        shape(0, "1g.18gb")
        + shape(7, "1g.18gb+me", jpeg=1)
        + shape(9, "1g.35gb", memory_mb=33280)
    )
    instances = (
        instance(0, profile="1g.18gb+me")
        + instance(1, jpeg=1, profile="x")
        + instance(2, memory_mb=33024)
    )
    device = fake_nvml.python(h200(mig=1) + shapes + instances, SETUP)(
        "provider.discover('box')"
    )[0]
    assert [one.profile for one in device.mig] == ["1g.18gb", "1g.18gb+me", "1g.35gb"]


@pytest.mark.parametrize(
    "old",
    ["fail nvmlDeviceGetGpuInstanceProfileInfoV 13\n", ""],
    ids=["no names", "odd name"],
)
def test_without_a_name_of_the_drivers_one_is_worked_out_from_attributes(
    fake_nvml, old
) -> None:
    state = h200(mig=1) + shape(0, "Kilo") + instance(0) + old
    assert (
        fake_nvml.python(state, SETUP)("provider.discover('box')")[0].mig[0].profile
        == "1g.18gb"
    )


def test_processes_of_every_list_are_seen_once(fake_nvml) -> None:
    state = (
        h200()
        + process(11, 3 * GIB, name="/opt/python3.11_train.py_--key=/a/secret")
        + process(11, 3 * GIB, type="G")
        + process(12, GIB, type="M")
        + process(13, -1)
    )
    held = fake_nvml.python(state, SETUP)("provider.discover('box')[0].processes")
    assert [(p.pid, p.memory_bytes, p.name) for p in held] == [
        (11, 3 * GIB, "python3.11"),
        (12, GIB, ""),
        (13, None, ""),
    ]


def test_a_process_that_is_listed_with_nothing_is_told_from_an_unknown_figure(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200() + process(11, 0) + process(12, -1), SETUP)
    (device,) = child("provider.discover('box')")
    held = {use.pid: use.memory_bytes for use in device.processes or ()}
    assert held == {11: 0, 12: None}


def test_processes_of_mig_instances_are_seen(fake_nvml) -> None:
    state = h200(mig=1) + instance(0) + process(11, GIB, gi=7)
    held = fake_nvml.python(state, SETUP)("provider.discover('box')[0].processes")
    assert [(p.pid, p.memory_bytes) for p in held] == [(11, GIB)]


def test_a_driver_too_old_for_mps_lists_still_lists_the_others(fake_nvml) -> None:
    state = (
        h200()
        + process(11, GIB)
        + "fail nvmlDeviceGetMPSComputeRunningProcesses_v3 13\n"
    )
    assert [
        p.pid
        for p in fake_nvml.python(state, SETUP)("provider.discover('box')[0].processes")
    ] == [11]


# -- what goes wrong -------------------------------------------------------------------


def test_one_lost_gpu_hides_no_other(fake_nvml) -> None:
    child = fake_nvml.python(h200(0) + h200(1) + h200(2), SETUP)
    assert all(d.is_healthy for d in child("provider.discover('box')"))
    fake_nvml.change(h200(0) + h200(1, lost=15) + h200(2))
    devices = child("provider.discover('box')")
    assert [(d.id, d.name) for d in devices] == [
        (f"GPU-{i}", "NVIDIA H200") for i in range(3)
    ]
    assert [d.is_healthy for d in devices] == [True, False, True]
    assert "fell off the bus" in devices[1].problem
    assert devices[1].memory_bytes == H200_BYTES


def test_a_gpu_lost_from_the_start_is_listed_without_a_uuid(fake_nvml) -> None:
    devices = fake_nvml.python(h200(0, lost=15) + h200(1), SETUP)(
        "provider.discover('box')"
    )
    assert [(d.id, d.name, d.is_healthy) for d in devices] == [
        ("GPU-unknown-0", "GPU 0", False),
        ("GPU-1", "NVIDIA H200", True),
    ]


def test_a_gpu_that_vanished_stays_listed_as_lost(fake_nvml) -> None:
    child = fake_nvml.python(h200(0) + h200(1), SETUP)
    child("provider.discover('box')")
    fake_nvml.change(h200(1))
    assert [(d.id, bool(d.problem)) for d in child("provider.discover('box')")] == [
        ("GPU-0", True),
        ("GPU-1", False),
    ]


def test_a_gpu_that_comes_back_is_healthy_again(fake_nvml) -> None:
    child = fake_nvml.python(h200(lost=15), SETUP)
    assert not child("provider.discover('box')[0].is_healthy")
    fake_nvml.change("session 2\n" + h200())
    assert [(d.id, d.problem) for d in child("provider.discover('box')")] == [
        ("GPU-0", "")
    ]


@pytest.mark.parametrize(
    ("code", "words"),
    [(16, "needs a reset"), (999, "999")],
)
def test_a_gpu_in_trouble_says_why(fake_nvml, code, words) -> None:
    devices = fake_nvml.python(h200(0, lost=code) + h200(1), SETUP)(
        "provider.discover('box')"
    )
    assert words in devices[0].problem
    assert devices[1].is_healthy


def test_a_gpu_whose_memory_is_secret_cannot_be_granted(fake_nvml) -> None:
    device = fake_nvml.python(h200(noperm=1), SETUP)("provider.discover('box')")[0]
    assert "does not let this user read its memory" in device.problem
    inventory = Inventory(host="box", devices=(device,))
    placed = place(parse_spec("1"), inventory, ())
    assert isinstance(placed, PlacementFailure)


def test_a_driver_that_is_not_loaded_is_a_problem_even_when_optional(fake_nvml) -> None:
    child = fake_nvml.python("fail nvmlInit 9\n", SETUP)
    child.run("optional = GPUProvider(optional=True)")
    for name in ("provider", "optional"):
        with pytest.raises(DriverNotFound, match="not loaded"):
            child(f"{name}.discover('box')")


def test_trouble_of_the_whole_driver_is_no_trouble_of_a_gpu(fake_nvml) -> None:
    child = fake_nvml.python(h200() + "fail nvmlDeviceGetHandleByIndex_v2 18\n", SETUP)
    with pytest.raises(ProviderError, match="do not belong together"):
        child("provider.discover('box')")


# -- placement beside strangers --------------------------------------------------------


def test_half_a_gpu_is_refused_while_strangers_hold_most_of_it(fake_nvml) -> None:
    state = h200(
        memory=80 * GIB, reserved=0, name="NVIDIA_H100_80GB_HBM3", used=60 * GIB
    ) + process(4242, 60 * GIB)
    inventory = Inventory(
        host="box", devices=fake_nvml.python(state, SETUP)("provider.discover('box')")
    )
    strangers = with_foreign(inventory, Holders())
    placed = place(parse_spec("1/2"), strangers, ())
    assert isinstance(placed, PlacementFailure)
    assert "60.0 GiB" in placed.reason
    assert "outside aistack" in placed.reason
    assert not isinstance(place(parse_spec("1/4"), strangers, ()), PlacementFailure)
    ours = with_foreign(inventory, Holders(ours=frozenset({4242})))
    assert not isinstance(place(parse_spec("1/2"), ours, ()), PlacementFailure)


def test_a_mig_slice_is_placed_by_the_name_users_know(fake_nvml) -> None:
    state = h200(mig=1) + "".join(instance(slot) for slot in range(7))
    inventory = Inventory(
        host="box", devices=fake_nvml.python(state, SETUP)("provider.discover('box')")
    )
    placed = place(parse_spec("1g.18gb"), inventory, ())
    assert isinstance(placed, tuple)
    assert (placed[0].uuid, placed[0].memory_bytes) == ("MIG-00", 16 * GIB)


# -- making ready ----------------------------------------------------------------------


def test_a_whole_gpu_needs_no_caps(lease) -> None:
    device = gpu()
    prepared = GPUProvider().prepare(lease(share("1", device)), {device.id: device})
    assert prepared.environment == {
        "CUDA_VISIBLE_DEVICES": "GPU-0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    assert prepared.expects == Expectation(visible=("GPU-0",), memory_total=80 * GIB)
    assert prepared.enforced_by is Enforcement.WHOLE
    assert prepared.memory_limit_bytes == 80 * GIB


def test_a_share_is_capped_by_what_the_process_will_see(lease) -> None:
    device = gpu()
    prepared = GPUProvider().prepare(lease(share("1/2", device)), {device.id: device})
    assert prepared.environment["AISTACK_MEMORY_FRACTION"] == "0.493750"
    assert prepared.environment["CUPY_GPU_MEMORY_LIMIT"] == str(40 * GIB - 512 * MIB)
    assert prepared.enforced_by is Enforcement.L0
    assert prepared.memory_limit_bytes == 40 * GIB


def test_shares_of_unlike_gpus_take_the_tighter_cap(lease) -> None:
    large, small = gpu(0), gpu(1, memory_bytes=24 * GIB)
    slices = (share("1/2", large), share("1/3", small))
    prepared = GPUProvider().prepare(lease(*slices), {"GPU-0": large, "GPU-1": small})
    assert prepared.environment["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert prepared.environment["CUPY_GPU_MEMORY_LIMIT"] == str(8 * GIB - 512 * MIB)
    assert prepared.memory_limit_bytes == 48 * GIB


def test_a_mig_instance_is_named_by_its_own_uuid_and_needs_no_caps(lease) -> None:
    mig = MIGInstance(uuid="MIG-a", profile="1g.10gb", memory_bytes=10 * GIB)
    device = gpu(mig=(mig,), mig_enabled=True)
    prepared = GPUProvider().prepare(lease(slice_of(device, mig)), {device.id: device})
    assert prepared.environment["CUDA_VISIBLE_DEVICES"] == "MIG-a"
    assert "AISTACK_MEMORY_FRACTION" not in prepared.environment
    assert (prepared.enforced_by, prepared.expects) == (
        Enforcement.L4,
        Expectation(visible=("MIG-a",), memory_total=10 * GIB),
    )


def test_a_compute_instance_shares_memory_and_does_not_claim_isolation(lease) -> None:
    mig = MIGInstance(
        uuid="MIG-a",
        profile="any",
        memory_bytes=10 * GIB,
        gpu_slices=2,
        compute_slices=1,
    )
    device = gpu(mig=(mig,), mig_enabled=True)
    now = slice_of(device, mig)
    before = replace(
        now, gpu_slices=0, compute_slices=0
    )  # as earlier versions wrote it down
    for piece in (now, before):
        prepared = GPUProvider().prepare(lease(piece), {device.id: device})
        assert prepared.enforced_by is Enforcement.L0
        assert prepared.environment["AISTACK_MEMORY_FRACTION"] == "0.475000"


def test_two_mig_instances_are_more_than_a_process_can_use(lease) -> None:
    migs = tuple(
        MIGInstance(uuid=f"MIG-{n}", profile="1g.10gb", memory_bytes=10 * GIB)
        for n in range(2)
    )
    device = gpu(mig=migs, mig_enabled=True)
    with pytest.raises(PrepareFailed, match=r"ask for 1g\.10gb once for each worker"):
        GPUProvider().prepare(
            lease(*(slice_of(device, mig) for mig in migs)), {device.id: device}
        )


def test_a_device_that_went_away_or_broke_cannot_be_prepared(lease) -> None:
    device = gpu()
    with pytest.raises(PrepareFailed, match="no longer there"):
        GPUProvider().prepare(lease(share("1", device)), {})
    with pytest.raises(PrepareFailed, match="NVIDIA H200 fell off the bus"):
        GPUProvider().prepare(
            lease(share("1", device)), {device.id: gpu(problem="fell off the bus")}
        )


def test_a_mig_instance_that_was_destroyed_cannot_be_prepared(lease) -> None:
    mig = MIGInstance(uuid="MIG-a", profile="1g.10gb", memory_bytes=10 * GIB)
    slice_ = slice_of(gpu(mig=(mig,)), mig)
    with pytest.raises(PrepareFailed, match="no MIG instance MIG-a any more"):
        GPUProvider().prepare(lease(slice_), {"GPU-0": gpu(mig_enabled=True)})


# -- measuring -------------------------------------------------------------------------


def test_usage_sums_a_leases_processes_on_its_devices_alone(fake_nvml, lease) -> None:
    state = (
        h200(0)
        + h200(1)
        + process(11, GIB, sm=20)
        + process(12, 2 * GIB, sm=30)
        + process(13, 9 * GIB, sm=40)
    )
    child = fake_nvml.python(state + process(11, 5 * GIB, gpu=1), SETUP)
    held = {"l-1": lease(share("1/2", gpu()))}
    used = child(
        "usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11, 12})}
    )
    assert used == {"l-1": Usage(memory_bytes=3 * GIB, utilization=0.5)}


def test_usage_changes_while_the_process_runs(fake_nvml, lease) -> None:
    child = fake_nvml.python(h200() + process(11, GIB), SETUP)
    ask = {
        "held": {"l-1": lease(share("1/2", gpu()))},
        "pids": {"l-1": frozenset({11})},
    }
    assert child("usage(provider, held, pids)['l-1']", **ask) == Usage(
        memory_bytes=GIB, utilization=0.0
    )
    fake_nvml.change(h200() + process(11, 2 * GIB, sm=80))
    assert child("usage(provider, held, pids)['l-1']", **ask) == Usage(
        memory_bytes=2 * GIB, utilization=0.8
    )


def test_a_lease_on_two_gpus_adds_memory_and_averages_business(
    fake_nvml, lease
) -> None:
    state = h200(0) + h200(1) + process(11, GIB, sm=100) + process(11, 2 * GIB, gpu=1)
    child = fake_nvml.python(state, SETUP)
    held = {"l-1": lease(share("1/2", gpu(0)), share("1/2", gpu(1)))}
    used = child(
        "usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11})}
    )
    assert used == {"l-1": Usage(memory_bytes=3 * GIB, utilization=0.5)}


def test_usage_on_mig_is_of_the_instance_and_has_no_utilization(
    fake_nvml, lease
) -> None:
    state = (
        h200(mig=1)
        + instance(0)
        + instance(1)
        + process(11, GIB, gi=7)
        + process(11, 4 * GIB, gi=8)
    )
    child = fake_nvml.python(state, SETUP)
    device = child("provider.discover('box')[0]")
    held = {"l-1": lease(slice_of(device, device.mig[0]))}
    used = child(
        "usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11})}
    )
    assert used == {"l-1": Usage(memory_bytes=GIB, utilization=None)}


def test_memory_the_driver_keeps_to_itself_is_unknown_not_zero(
    fake_nvml, lease
) -> None:
    child = fake_nvml.python(h200() + process(11, GIB) + process(12, -1), SETUP)
    held = {"l-1": lease(share("1/2", gpu()))}
    both = child(
        "usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11, 12})}
    )
    one = child("usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11})})
    assert (both["l-1"].memory_bytes, one["l-1"].memory_bytes) == (None, GIB)


def test_leavings_of_ended_processes_are_not_utilization(fake_nvml, lease) -> None:
    child = fake_nvml.python(
        h200() + process(11, GIB, sm=4000) + process(12, GIB, sm=10), SETUP
    )
    held = {"l-1": lease(share("1/2", gpu()))}
    used = child(
        "usage(provider, held, pids)", held=held, pids={"l-1": frozenset({11, 12})}
    )
    assert used["l-1"].utilization == pytest.approx(0.1)


def test_usage_of_a_lost_gpu_is_unknown_and_hides_no_other(fake_nvml, lease) -> None:
    child = fake_nvml.python(
        h200(0, lost=15) + h200(1, util=50) + process(11, GIB, gpu=1), SETUP
    )
    held = {"l-0": lease(share("1/2", gpu(0))), "l-1": lease(share("1/2", gpu(1)))}
    used = child(
        "usage(provider, held, pids, devices)",
        held=held,
        pids={"l-0": frozenset({11}), "l-1": frozenset({11})},
        devices={"GPU-0": gpu(0), "GPU-1": gpu(1)},
    )
    assert used == {"l-0": Usage(), "l-1": Usage(memory_bytes=GIB, utilization=0.0)}
    devices = child(
        "device_usage(provider, devices)", devices={"GPU-0": gpu(0), "GPU-1": gpu(1)}
    )
    assert devices["GPU-0"] == Usage()
    assert devices["GPU-1"].utilization == 0.5


def test_device_usage_has_power_and_energy_in_watts_and_joules(fake_nvml) -> None:
    child = fake_nvml.python(
        h200(used=7 * GIB, util=37, power_mw=412500, energy_mj=9000500), SETUP
    )
    assert child("device_usage(provider, devices)", devices={"GPU-0": gpu()}) == {
        "GPU-0": Usage(
            memory_bytes=7 * GIB,
            utilization=0.37,
            power_watts=412.5,
            energy_joules=9000.5,
        )
    }


def test_device_usage_that_the_driver_does_not_know_is_none(fake_nvml) -> None:
    state = (
        h200(mig=1, noperm=1)
        + "fail nvmlDeviceGetPowerUsage 3\nfail nvmlDeviceGetTotalEnergyConsumption 3\n"
    )
    used = fake_nvml.python(state, SETUP)(
        "device_usage(provider, devices)", devices={"GPU-0": gpu()}
    )
    assert used == {"GPU-0": Usage()}


def test_measuring_asks_the_driver_once_for_many_leases(fake_nvml, lease) -> None:
    child = fake_nvml.python(h200() + process(11, GIB), SETUP)
    child.run("asked = []\nquery = provider._nvml.query")
    child.run(
        "provider._nvml.query = lambda f, *a, **k: (asked.append(f), query(f, *a, **k))[1]"
    )
    held = {f"l-{n}": lease(share("1/8", gpu()), id=f"l-{n}") for n in range(8)}
    child("usage(provider, held, {}, devices)", held=held, devices={"GPU-0": gpu()})
    assert child("asked.count('nvmlDeviceGetComputeRunningProcesses_v3')") == 1
    assert child("asked.count('nvmlDeviceGetProcessUtilization')") == 1


EVERY_FAILURE = """
import os
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.nvml import NVML
from tests.fakes.child import write_state
file, asked, query = os.environ["FAKE_NVML_STATE"], set(), NVML.query

def look():
    provider = GPUProvider()
    try:
        devices = {each.id: each for each in provider.discover("box")}
    except ProviderError:
        return
    finally:
        provider.close()
    provider.sample(devices, {}, {})
    provider.faults()

def noted(self, function, *args, **options):
    asked.add(function)
    return query(self, function, *args, **options)

def fail_each(state, codes):
    NVML.query = noted
    look()
    NVML.query = query
    for function in sorted(asked):
        for code in codes:
            write_state(Path(file), f"{state}fail {function} {code}\\n")
            look()
    return sorted(asked)
"""


@pytest.mark.parametrize(
    "state", [h200() + process(11, GIB, sm=50), h200(mig=1) + instance(0)]
)
def test_whatever_the_driver_answers_is_an_error_of_the_provider(
    fake_nvml, state: str
) -> None:
    child = fake_nvml.python(state, f"{SETUP}from pathlib import Path\n{EVERY_FAILURE}")
    asked = child("fail_each(state, (1, 3, 4, 15, 18, 999))", state=state)
    assert {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMigMode"} <= set(asked)
