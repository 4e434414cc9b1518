from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import (
    EVERY_DEVICE,
    Device,
    DeviceKind,
    Inventory,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.placement.cache import DeviceFacts
from jupyter_aistack.core.placement.placement import Capacity, free_share, place
from jupyter_aistack.core.placement.verdict import PlacementFailure


def gpu(index: int, memory_gib: int = 80, **fields: object) -> Device:
    text = {
        "id": f"GPU-{index}",
        "host": "box",
        "kind": DeviceKind.GPU,
        "index": index,
        "name": "H100",
    }
    return Device(**{**text, "memory_bytes": memory_gib * GIB, **fields})  # type: ignore[arg-type]


def cpu(cores: int = 8) -> Device:
    return Device(
        id="CPU-box",
        host="box",
        kind=DeviceKind.CPU,
        index=0,
        name="CPU",
        memory_bytes=64 * GIB,
        cores=tuple(range(cores)),
    )


def box(*devices: Device) -> Inventory:
    return Inventory(host="box", devices=devices)


def placed(
    spec: str, inventory: Inventory, taken: tuple[Slice, ...] = ()
) -> tuple[Slice, ...]:
    answer = place(parse_spec(spec), inventory, taken)
    assert not isinstance(answer, PlacementFailure), answer
    return answer


def unplaced(
    spec: str, inventory: Inventory, taken: tuple[Slice, ...] = ()
) -> PlacementFailure:
    answer = place(parse_spec(spec), inventory, taken)
    assert isinstance(answer, PlacementFailure), answer
    return answer


def test_a_share_goes_to_the_fullest_device_that_holds_it() -> None:
    inventory = box(gpu(0), gpu(1))
    taken = placed("1/2", inventory)
    assert taken[0].device_id == "GPU-0"
    assert placed("1/4", inventory, taken)[0].device_id == "GPU-0"
    assert placed("3/4", inventory, taken)[0].device_id == "GPU-1"


def test_several_slices_lie_on_several_devices() -> None:
    assert [s.device_id for s in placed("1/2x2", box(gpu(0), gpu(1)))] == [
        "GPU-0",
        "GPU-1",
    ]
    assert [s.kind for s in placed("2", box(gpu(0), gpu(1)))] == [
        SliceKind.GPU,
        SliceKind.GPU,
    ]


def test_a_slice_of_no_known_device_takes_from_every_device() -> None:
    inventory = box(gpu(0), gpu(1), cpu())
    [whole] = placed("1", box(gpu(0)), ())
    lost = replace(whole, device_id=EVERY_DEVICE)
    for spec in ("1/4", "1", "cpu:2"):
        assert not unplaced(spec, inventory, (lost,)).never, "only now"
    assert free_share(inventory.devices[1], (lost,)) == 0
    capacity = Capacity(DeviceFacts(inventory), (lost,))
    capacity.release((lost,))
    assert capacity.share("GPU-1") == 1


def test_memory_is_a_share_of_the_device_it_lands_on() -> None:
    (slice_,) = placed("20GiB", box(gpu(0)))
    assert (slice_.fraction, slice_.memory_bytes) == (Fraction(1, 4), 20 * GIB)


def test_a_bare_share_takes_the_cpu_only_where_there_is_no_gpu() -> None:
    assert placed("1/4", box(cpu(), gpu(0)))[0].kind is SliceKind.SHARE
    (slice_,) = placed("1/4", box(cpu()))
    assert (slice_.kind, slice_.cores) == (SliceKind.CPU, (0, 1))


def test_cpu_slices_take_the_quietest_cores_and_small_ones_share_a_core() -> None:
    inventory = box(cpu(2))
    taken: tuple[Slice, ...] = ()
    for expected in ((0,), (1,), (0,), (1,)):
        (slice_,) = placed("1/4", inventory, taken)
        assert slice_.cores == expected
        taken += (slice_,)
    assert "waits for" in unplaced("1/4", inventory, taken).reason


def test_memory_of_strangers_cannot_be_granted() -> None:
    occupied = replace(gpu(0), foreign_memory_bytes=60 * GIB)
    answer = unplaced("1/2", box(occupied))
    assert "60.0 GiB" in answer.reason
    assert "outside aistack" in answer.reason
    assert not answer.never
    assert placed("1/4", box(occupied))[0].memory_bytes == 20 * GIB


def test_a_display_server_does_not_keep_a_gpu_from_being_whole() -> None:
    assert placed("1", box(replace(gpu(0), foreign_memory_bytes=200 << 20)))


def test_mig_instances_are_granted_by_profile_and_only_so() -> None:
    instances = tuple(
        MIGInstance(uuid=f"MIG-{n}", profile="1g.10gb", memory_bytes=10 * GIB)
        for n in range(2)
    )
    inventory = box(gpu(0, mig=instances, mig_enabled=True))
    first = placed("1g.10gb", inventory)
    assert (first[0].uuid, first[0].kind) == ("MIG-0", SliceKind.MIG)
    assert placed("1g.10gb", inventory, first)[0].uuid == "MIG-1"
    assert "1g.10gb" in unplaced("1/4", inventory).reason
    assert "once for each worker" in unplaced("1g.10gbx2", inventory).reason
    never = unplaced("1g.18gb", inventory)
    assert never.never
    assert "offers 1g.10gb" in never.reason


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("2", "this host has 1 GPU; 1 more is cut into MIG instances (1g.10gb)"),
        ("1/2x2", "this host has 1 GPU; 1 more is cut into MIG instances (1g.10gb)"),
        (
            "100GiB",
            "the largest device has 80.0 GiB; 1 more is cut into MIG instances (1g.10gb)",
        ),
        ("20GiBx2", "this host has 1 GPU; 1 more is cut into MIG instances (1g.10gb)"),
    ],
)
def test_a_cut_gpu_beside_a_whole_one_does_not_hide_it(spec: str, why: str) -> None:
    instance = MIGInstance(uuid="MIG-0", profile="1g.10gb", memory_bytes=10 * GIB)
    mixed = box(gpu(0, mig=(instance,), mig_enabled=True), gpu(1))
    answer = unplaced(spec, mixed)
    assert (answer.never, answer.reason) == (
        "Unsatisfiable",
        f"{parse_spec(spec)} cannot be had here: {why}",
    )
    assert [slice_.uuid for slice_ in placed("1", mixed)] == ["GPU-1"]
    two = box(gpu(0, mig=(instance,), mig_enabled=True), gpu(1), gpu(2))
    assert len(placed("2", two)) == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [("3", "2 GPUs"), ("100GiB", "80.0 GiB"), ("cpu:9", "8 cores"), ("1024", "2 GPUs")],
)
def test_what_could_never_fit_is_said_so_with_what_there_is(
    spec: str, words: str
) -> None:
    answer = unplaced(spec, box(gpu(0), gpu(1), cpu()))
    assert answer.never
    assert words in answer.reason


def test_insisting_on_a_gpu_where_there_is_none_tells_the_way_out() -> None:
    assert (
        "ask for 1/4 to take a share of the CPU"
        in unplaced("gpu:1/4", box(cpu())).reason
    )


def test_insisting_on_the_cpu_where_there_is_none_tells_what_there_is() -> None:
    answer = unplaced("cpu:2", box(gpu(0)))
    assert answer.never
    assert answer.reason == "cpu:2 cannot be had: this host offers GPUs alone"


def test_a_lost_device_is_not_used_and_named() -> None:
    answer = unplaced("1/4", box(gpu(0, problem="has fallen off the bus")))
    assert "fallen off the bus" in answer.reason
    assert not answer.never


SPECS = st.sampled_from(
    [
        "1/8",
        "1/4",
        "1/3",
        "1/2",
        "1",
        "2",
        "10GiB",
        "1/2x2",
        "cpu:1",
        "cpu:1/3",
        "gpu:1/5",
        "0.125x3",
    ]
)


@given(st.lists(SPECS, max_size=40), st.integers(0, 3), st.integers(1, 9), st.data())
def test_never_is_more_granted_than_there_is(
    specs: list[str], gpus: int, cores: int, data: st.DataObject
) -> None:
    inventory = box(*(gpu(n) for n in range(gpus)), cpu(cores))
    held: list[tuple[Slice, ...]] = []
    for spec in specs:
        if held and data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        answer = place(
            parse_spec(spec),
            inventory,
            [slice_ for slices in held for slice_ in slices],
        )
        if not isinstance(answer, PlacementFailure):
            held.append(answer)
        for device in inventory.devices:
            pieces = [p for slices in held for p in slices if p.device_id == device.id]
            assert sum(p.fraction for p in pieces) <= 1
            assert sum(p.memory_bytes for p in pieces) <= device.memory_bytes
            assert all(
                set(p.cores) <= set(device.cores)
                and (p.cores or device.kind is DeviceKind.GPU)
                for p in pieces
            )


def test_cores_and_memory_of_the_host_come_with_a_device_and_are_counted() -> None:
    inventory = box(gpu(0), gpu(1), cpu())
    first = placed("1/4,cpu:6,mem:8GiB", inventory)
    assert [(s.device_id, s.kind) for s in first] == [
        ("GPU-0", SliceKind.SHARE),
        ("CPU-box", SliceKind.CPU),
    ]
    assert (len(first[1].cores), first[1].memory_bytes, first[1].fraction) == (
        6,
        8 * GIB,
        Fraction(3, 4),
    )
    assert (
        "waits for cores or memory of the host: 2 cores"
        in unplaced("1/4,cpu:4", inventory, first).reason
    )
    second = placed("1/4,cpu:2", inventory, first)
    assert set(second[1].cores).isdisjoint(first[1].cores)
    only_memory = placed("gpu:1/4,mem:16GiB", inventory)
    assert (only_memory[1].cores, only_memory[1].fraction) == ((), Fraction(1, 4))
    assert "this host has 8 cores and 64.0 GiB" in unplaced("1,cpu:9", inventory).reason
    assert (
        "no cores of this host are leased out"
        in unplaced("1,cpu:1", box(gpu(0))).reason
    )
    assert unplaced("1/4,cpu:1", box(cpu())).never == "Unsatisfiable"


def test_a_model_is_a_word_of_the_devices_name() -> None:
    inventory = box(
        gpu(0, name="NVIDIA A100-SXM4-80GB"), gpu(1, name="NVIDIA H100 80GB HBM3")
    )
    assert placed("1/2,model:h100", inventory)[0].device_id == "GPU-1"
    assert placed("1/2,model:a100|h100", inventory)[0].device_id == "GPU-0"
    assert "no GPU here is of that model" in unplaced("1/2,model:h10", inventory).reason
    assert (
        unplaced("2,model:h100", inventory).reason
        == "2,model:h100 cannot be had here: this host has 1 GPU of h100"
    )


def test_several_devices_are_those_that_nvlink_joins_then_those_of_one_domain() -> None:
    pairs = {0: 3, 3: 0, 1: 2, 2: 1}
    linked = [gpu(n, peers=frozenset({f"GPU-{pairs[n]}"})) for n in range(4)]
    assert [s.device_id for s in placed("2", box(*linked))] == ["GPU-0", "GPU-3"]
    held = placed("1", box(*linked))
    assert [s.device_id for s in placed("2", box(*linked), held)] == ["GPU-1", "GPU-2"]
    near = [gpu(n, domain=str(n % 2)) for n in range(4)]
    assert [s.device_id for s in placed("2", box(*near))] == ["GPU-0", "GPU-2"]


def test_all_slices_lie_on_one_host_the_fullest_that_holds_them() -> None:
    hosts = [
        replace(gpu(n), id=f"{name}-{n}", host=name)
        for name in ("a", "b")
        for n in range(2)
    ]
    inventory = box(*hosts)
    room = Capacity(DeviceFacts(inventory))
    first = room.place(parse_spec("1/2"))
    assert isinstance(first, tuple)
    room.allocate(first)
    assert first[0].device_id == "a-0"
    both = room.place(parse_spec("2"))
    assert isinstance(both, tuple)
    assert [s.device_id for s in both] == ["b-0", "b-1"]
    assert isinstance(room.place(parse_spec("2"), host="a"), PlacementFailure)
    assert isinstance(room.place(parse_spec("3")), PlacementFailure)
    room.release(first)
    assert isinstance(room.place(parse_spec("2"), host="a"), tuple)


def test_what_is_kept_for_others_is_not_given_away() -> None:
    room = Capacity(DeviceFacts(box(gpu(0), gpu(1))))
    answer = room.place(parse_spec("1/2"), kept={"GPU-0": Fraction(3, 4)})
    assert isinstance(answer, tuple)
    assert answer[0].device_id == "GPU-1"
    assert isinstance(
        room.place(parse_spec("1/2x2"), kept={"GPU-0": Fraction(3, 4)}),
        PlacementFailure,
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["1/3", "1/7", "2/7", "1/8", "10GiB", "1/2x2", "1", "cpu:3"]
            ),
            st.booleans(),
        )
    ),
)
def test_a_room_gives_no_more_than_it_has_and_what_is_given_back_is_free_again(
    steps: list[tuple[str, bool]],
) -> None:
    devices = (gpu(0), gpu(1), cpu())
    room, held = Capacity(DeviceFacts(box(*devices))), []
    for spec, gives_back in steps:
        if gives_back and held:
            room.release(held.pop(0))
        answer = room.place(parse_spec(spec))
        if isinstance(answer, tuple):
            room.allocate(answer)
            held.append(answer)
        for device in devices:
            pieces = [s for slices in held for s in slices if s.device_id == device.id]
            assert (
                room.share(device.id)
                == 1 - sum((s.fraction for s in pieces), Fraction(0))
                >= 0
            )
            assert (
                room.memory(device.id)
                == device.memory_bytes - sum(s.memory_bytes for s in pieces)
                >= 0
            )
    for slices in held:
        room.release(slices)
    assert all(room.share(device.id) == 1 for device in devices)


def test_a_share_too_small_for_a_process_goes_to_a_larger_device() -> None:
    small = gpu(0, 16, least_share_bytes=GIB)
    why = unplaced("gpu:1/32", box(small))
    assert why.never == "Unsatisfiable"
    assert "a share of a GPU needs at least 1.0 GiB here" in why.reason
    assert "needs at least 1.0 GiB" in unplaced("gpu:512MiB", box(small)).reason
    assert placed("gpu:1/16", box(small))[0].memory_bytes == GIB
    large = gpu(1, 80, least_share_bytes=GIB)
    assert placed("gpu:1/32", box(small, large))[0].device_id == "GPU-1"
