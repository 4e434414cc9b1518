"""AMD GPUs as AMD SMI describes them: the real `amdsmi` package over a fake library,
changed live.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.core.model.context_memory import least_share_bytes
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Inventory,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.exceptions import (
    DriverNotFound,
    PrepareFailed,
    ProviderError,
    Unsatisfiable,
)
from jupyter_aistack.providers.amd.provider import AMDProvider

SETUP = """
from jupyter_aistack.providers.amd.provider import AMDProvider
from tests.fakes.measuring import device_usage, loads, usage
from jupyter_aistack.testing import ManualClock
clock = ManualClock()
provider = AMDProvider(clock=clock)
"""
MEMORY = 192 * GIB


def mi300x(index: int = 0, **more: object) -> str:
    keys = {
        "uuid": f"GPU-00000000000000a{index}",
        "serial": f"a{index}",
        "name": "AMD_Instinct_MI300X",
    }
    keys |= {
        "memory": str(MEMORY),
        "cus": "304",
        **{key: str(value) for key, value in more.items()},
    }
    return (
        "gpu "
        + " ".join(f"{key}={value}" for key, value in keys.items() if value)
        + "\n"
    )


def process(pid: int, memory_bytes: int, gpu: int = 0, name: str = "python3") -> str:
    return f"process gpu={gpu} pid={pid} memory={memory_bytes} name={name}\n"


def gpu(index: int = 0, **more: object) -> Device:
    values: dict[str, object] = {
        "vendor": "amd",
        "is_divisible": False,
        "memory_bytes": MEMORY,
        **more,
    }
    name = "AMD Instinct MI300X"
    return Device(
        id=f"GPU-00000000000000a{index}",
        host="box",
        kind=DeviceKind.GPU,
        index=index,
        name=name,
        **values,
    )  # type: ignore[arg-type]


def whole(device: Device) -> Slice:
    return Slice(
        device_id=device.id,
        kind=SliceKind.GPU,
        fraction=Fraction(1),
        memory_bytes=device.memory_bytes,
        uuid=device.id,
    )


# -- what there is ---------------------------------------------------------------------


def test_a_gpu_is_described(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(), SETUP)
    described = gpu(multiprocessors=304, least_share_bytes=least_share_bytes(None))
    assert child("provider.discover('box')") == (described,)


def test_processes_are_seen_by_program_alone(fake_amdsmi) -> None:
    state = (
        mi300x(0)
        + mi300x(1)
        + process(11, 3 * GIB, name="/opt/python3.11_train.py_--key=/secret")
    )
    devices = fake_amdsmi.python(state + process(12, GIB, gpu=1, name=""), SETUP)(
        "provider.discover('box')"
    )
    seen = [
        [(p.pid, p.memory_bytes, p.name) for p in device.processes]
        for device in devices
    ]
    assert seen == [[(11, 3 * GIB, "python3.11")], [(12, GIB, "")]]


def test_a_library_too_old_to_tell_rocms_name_is_read_by_serial_number(
    fake_amdsmi,
) -> None:
    child = fake_amdsmi.python(
        mi300x() + "fail amdsmi_get_gpu_enumeration_info 2\n", SETUP
    )
    assert child("provider.discover('box')[0].id") == "GPU-00000000000000a0"


def test_a_gpu_that_rocm_cannot_choose_by_uuid_is_shown_and_not_leased(
    fake_amdsmi,
) -> None:
    devices = fake_amdsmi.python(mi300x(uuid="GPU-0000000000000000", serial=0), SETUP)(
        "provider.discover('box')"
    )
    assert [(d.id, "has no UUID" in d.problem) for d in devices] == [
        ("GPU-amd-0", True)
    ]


def test_partitions_with_one_uuid_are_shown_once_and_not_leased(fake_amdsmi) -> None:
    devices = fake_amdsmi.python(mi300x(0) + mi300x(0) + mi300x(1), SETUP)(
        "provider.discover('box')"
    )
    assert [(d.id[-2:], "partitions" in d.problem) for d in devices] == [
        ("a0", True),
        ("a1", False),
    ]


# -- what goes wrong -------------------------------------------------------------------


def test_without_the_library_the_host_has_simply_no_amd_gpu(fake_amdsmi) -> None:
    child = fake_amdsmi.python(None, SETUP + "optional = AMDProvider(optional=True)\n")
    assert child("optional.discover('box')") == ()
    with pytest.raises(DriverNotFound, match="is not installed"):
        child("provider.discover('box')")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (34, DriverNotFound, "amdgpu is not loaded"),
        (10, ProviderError, "is refused to this user"),
        (18, ProviderError, "see the kernel log"),
        (99, ProviderError, "AMD SMI error 99"),
    ],
)
def test_a_driver_that_does_not_start_is_one_sentence_even_when_optional(
    fake_amdsmi, code, kind, words
) -> None:
    child = fake_amdsmi.python(f"{mi300x()}fail amdsmi_init {code}\n", SETUP)
    child.run("optional = AMDProvider(optional=True)")
    for name in ("provider", "optional"):
        with pytest.raises(kind, match=words) as caught:
            child(f"{name}.discover('box')")
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (12, "fell off the bus"),
        (31, "fell off the bus"),
        (10, "groups render and video"),
        (77, "77"),
    ],
)
def test_one_gpu_in_trouble_says_why_and_hides_no_other(
    fake_amdsmi, code, words
) -> None:
    child = fake_amdsmi.python(mi300x(0) + mi300x(1), SETUP)
    assert all(d.is_healthy for d in child("provider.discover('box')"))
    fake_amdsmi.change(mi300x(0) + mi300x(1, lost=code))
    devices = child("provider.discover('box')")
    assert [(d.name, d.memory_bytes, d.is_healthy) for d in devices] == [
        ("AMD Instinct MI300X", MEMORY, True),
        ("AMD Instinct MI300X", MEMORY, False),
    ]
    assert words in devices[1].problem


def test_an_answer_that_cannot_be_decoded_is_the_trouble_of_one_gpu(
    fake_amdsmi,
) -> None:
    state = mi300x(0) + mi300x(1, name="\udcff\udcfe")
    first, second = fake_amdsmi.python(state, SETUP)("provider.discover('box')")
    assert (first.problem, first.memory_bytes) == ("", MEMORY)
    assert second.problem.startswith(
        "cannot be asked amdsmi_get_gpu_asic_info (UnicodeDecodeError: "
    )


def test_a_gpu_lost_from_the_start_is_listed_and_comes_back(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(lost=12), SETUP)
    assert child("[(d.id, d.is_healthy) for d in provider.discover('box')]") == [
        ("GPU-amd-0", False)
    ]
    fake_amdsmi.change(mi300x())
    child.run("clock.advance(60)")
    assert child("[(d.id, d.is_healthy) for d in provider.discover('box')]") == [
        ("GPU-00000000000000a0", True)
    ]


def test_a_gpu_that_vanished_stays_listed_as_lost(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(0) + mi300x(1), SETUP)
    child("provider.discover('box')")
    fake_amdsmi.change(mi300x(1))
    assert sorted(
        child("[(d.id[-2:], d.is_healthy) for d in provider.discover('box')]")
    ) == [
        ("a0", False),
        ("a1", True),
    ]


def test_what_another_part_of_the_program_has_closed_is_opened_again(
    fake_amdsmi,
) -> None:
    child = fake_amdsmi.python(mi300x(), SETUP + "import amdsmi\n")
    child("provider.discover('box')")
    child.run("amdsmi.amdsmi_shut_down()")
    assert child("len(provider.discover('box'))") == 1


# -- placement -------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["1/2", "20GiB", "1/2x2"])
def test_a_share_is_refused_with_what_can_be_had(spec: str) -> None:
    placed = place(
        parse_spec(spec), Inventory(host="box", devices=(gpu(0), gpu(1))), ()
    )
    assert isinstance(placed, PlacementFailure)
    assert placed.never == Unsatisfiable.__name__
    assert "GPUs are leased whole only" in placed.reason


@pytest.mark.parametrize(("spec", "count"), [("1", 1), ("2", 2), ("192GiB", 1)])
def test_whole_gpus_are_granted(spec: str, count: int) -> None:
    placed = place(
        parse_spec(spec), Inventory(host="box", devices=(gpu(0), gpu(1))), ()
    )
    assert isinstance(placed, tuple)
    assert [(piece.kind, piece.fraction) for piece in placed] == [
        (SliceKind.GPU, 1)
    ] * count


def test_shares_go_to_the_other_maker_and_no_lease_mixes_two() -> None:
    nvidia = tuple(
        Device(
            id=f"GPU-n{i}",
            host="box",
            kind=DeviceKind.GPU,
            index=i,
            name="H200",
            memory_bytes=GIB,
            vendor="nvidia",
        )
        for i in range(2)
    )
    box = Inventory(host="box", devices=(gpu(0), gpu(1), *nvidia))
    (share,) = place(parse_spec("1/2"), box, ())  # type: ignore[misc]
    assert share.device_id == "GPU-n0"
    for held, left in (
        (gpu(0), {"GPU-n0", "GPU-n1"}),
        (nvidia[0], {gpu(0).id, gpu(1).id}),
    ):
        placed = place(parse_spec("2"), box, (whole(held),))
        assert {piece.device_id for piece in placed} == left  # type: ignore[union-attr]
    waiting = place(parse_spec("2"), box, (whole(gpu(0)), whole(nvidia[0])))
    assert isinstance(waiting, PlacementFailure)
    assert (waiting.never, "one maker" in waiting.reason) == ("", True)
    never = place(parse_spec("3"), box, ())
    assert isinstance(never, PlacementFailure)
    assert (never.never, "at most 2 are alike" in never.reason) == (
        Unsatisfiable.__name__,
        True,
    )


def test_a_size_that_only_an_amd_gpu_has_is_measured_by_what_can_be_shared() -> None:
    values = {
        "host": "box",
        "kind": DeviceKind.GPU,
        "index": 0,
        "name": "H100",
        "memory_bytes": 80 * GIB,
    }
    nvidia = Device(id="GPU-n0", vendor="nvidia", **values)  # type: ignore[arg-type]
    placed = place(
        parse_spec("100GiB"), Inventory(host="box", devices=(gpu(0), nvidia)), ()
    )
    assert isinstance(placed, PlacementFailure)
    assert placed.reason.endswith("the largest device has 80.0 GiB")


# -- making ready ----------------------------------------------------------------------


def test_a_process_is_shown_its_own_by_uuid_at_rocms_lowest_layer(lease) -> None:
    devices = {device.id: device for device in (gpu(0), gpu(1))}
    prepared = AMDProvider().prepare(
        lease(*map(whole, devices.values()), spec="2"), devices
    )
    assert prepared.environment == {
        "ROCR_VISIBLE_DEVICES": "GPU-00000000000000a0,GPU-00000000000000a1",
        "HIP_VISIBLE_DEVICES": "0,1",
        "GPU_DEVICE_ORDINAL": "0,1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert (prepared.memory_limit_bytes, prepared.enforced_by) == (
        2 * MEMORY,
        Enforcement.WHOLE,
    )


def test_a_gpu_that_broke_or_went_away_cannot_be_prepared(lease) -> None:
    held = lease(whole(gpu()), spec="1")
    with pytest.raises(PrepareFailed, match="MI300X fell off the bus"):
        AMDProvider().prepare(held, {gpu().id: gpu(problem="fell off the bus")})
    with pytest.raises(PrepareFailed, match="no longer there"):
        AMDProvider().prepare(held, {})


# -- measuring -------------------------------------------------------------------------


def test_a_leases_own_processes_count_and_its_gpus_are_as_busy_as_they_are(
    fake_amdsmi, lease
) -> None:
    state = (
        mi300x(0, util=40)
        + mi300x(1, util=80)
        + process(11, GIB)
        + process(11, 2 * GIB, gpu=1)
        + process(1, GIB)
    )
    child = fake_amdsmi.python(state, SETUP)
    child("provider.discover('box')")
    held = {"l-1": lease(whole(gpu(0)), whole(gpu(1)), spec="2")}
    used = child("usage(provider, held, {'l-1': frozenset({11})})", held=held)
    assert used == {"l-1": Usage(memory_bytes=3 * GIB, utilization=pytest.approx(0.6))}


def test_device_usage_has_watts_and_joules(fake_amdsmi) -> None:
    child = fake_amdsmi.python(
        mi300x(used=7 * GIB, util=37, power=412, energy=4_000_000), SETUP
    )
    child("provider.discover('box')")
    used = child("device_usage(provider, devices)", devices={gpu().id: gpu()})
    assert used == {
        gpu().id: Usage(
            memory_bytes=7 * GIB,
            utilization=0.37,
            power_watts=412.0,
            energy_joules=61.0,
        )
    }


def test_what_cannot_be_measured_is_none(fake_amdsmi, lease) -> None:
    closed = (
        "energy_count",
        "power_info",
        "gpu_process_list",
        "gpu_memory_usage",
        "gpu_activity",
    )
    state = mi300x() + "".join(f"fail amdsmi_get_{name} 2\n" for name in closed)
    child = fake_amdsmi.python(state, SETUP)
    child("provider.discover('box')")
    assert child("device_usage(provider, devices)", devices={gpu().id: gpu()}) == {
        gpu().id: Usage()
    }
    held = {"l-1": lease(whole(gpu()), spec="1")}
    assert child("usage(provider, held, {'l-1': frozenset({11})})", held=held) == {
        "l-1": Usage()
    }


def test_figures_that_stand_for_unknown_are_unknown(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(), SETUP)
    child("provider.discover('box')")
    used = child("device_usage(provider, devices)", devices={gpu().id: gpu()})[gpu().id]
    assert (used.utilization, used.power_watts) == (None, None)


# -- under a broker --------------------------------------------------------------------

BROKER = """
import os
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.registry import build_providers
from jupyter_aistack.testing import ManualClock, holder
clock = ManualClock()
broker = Broker(MemoryLedger(), build_providers("amd"), host="testbox", clock=clock, ttl_seconds=3600.0)
def submit(spec, name="kernel-1"):
    return broker.submit(spec, holder(name, pid=os.getpid()))
"""


def test_a_full_gpu_without_a_list_of_processes_is_not_granted(fake_amdsmi) -> None:
    secret = "fail amdsmi_get_gpu_process_list 2\n"
    child = fake_amdsmi.python(mi300x(used=180 * GIB) + secret, BROKER)
    assert child("broker.inventory().devices[0].processes") is None
    assert child("submit('1').state.value") == "queued"
    assert "180.0 GiB of its memory are held by processes outside aistack" in child(
        "broker.queue()[0].reason"
    )


def test_what_processes_of_another_namespace_hold_is_nobodys(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(), BROKER)
    child.run(
        "from jupyter_aistack.providers.amd.provider import AMDProvider\n"
        "from jupyter_aistack.system.pid_namespace import PidNamespace\n"
        "there = PidNamespace(is_initial=lambda: False)\n"
        "broker = Broker(MemoryLedger(), [AMDProvider(namespace=there)], host='testbox',\n"
        "                clock=clock, ttl_seconds=3600.0, pid_namespace=there)\n"
        "held = submit('1').lease_id"
    )
    assert child("broker.usage()[0][held].memory_bytes") == 0
    fake_amdsmi.change(mi300x(used=90 * GIB) + process(4242017, 90 * GIB))
    child.run("clock.advance(10)")
    assert child("broker.usage()[0][held].memory_bytes") is None
    assert child("broker.inventory().devices[0].foreign_memory_bytes") is None


def test_a_broker_leases_whole_amd_gpus_beside_strangers(fake_amdsmi) -> None:
    child = fake_amdsmi.python(mi300x(0) + mi300x(1) + process(1, 90 * GIB), BROKER)
    child.run("held = broker.lease(submit('1').lease_id)")
    assert child("held.slices[0].device_id") == gpu(1).id
    assert (
        child("broker.prepare(held).environment['ROCR_VISIBLE_DEVICES']") == gpu(1).id
    )
    waiting = child("submit('1', 'kernel-2').id")
    assert "90.0 GiB of its memory are held by processes outside aistack" in child(
        "broker.queue()[0].reason"
    )
    fake_amdsmi.change(mi300x(0) + mi300x(1))
    child.run("clock.advance(10); broker.cycle()")
    assert child("broker.request(waiting).state.value", waiting=waiting) == "granted"
    with pytest.raises(Unsatisfiable, match="GPUs are leased whole only"):
        child("submit('1/2', 'kernel-3')")
