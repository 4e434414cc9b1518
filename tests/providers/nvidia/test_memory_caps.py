"""The pure parts of the GPU provider: framework caps and NVIDIA's profile names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.context_memory import CONTEXT_BYTES
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.providers.nvidia.memory_caps import (
    caps,
    for_suspension,
    seen_bytes,
)
from jupyter_aistack.providers.nvidia.mig import profile_name


@given(total=st.integers(512 * MIB, 512 * GIB), share=st.integers(1, 1000))
def test_caps_never_exceed_the_slice(total: int, share: int) -> None:
    slice_bytes = total * share // 1000
    result = caps(slice_bytes, total)
    fraction = float(result["AISTACK_MEMORY_FRACTION"])
    assert 0 < fraction <= 1
    assert fraction * total <= slice_bytes
    assert int(result["CUPY_GPU_MEMORY_LIMIT"]) <= slice_bytes
    assert int(result["AISTACK_RMM_MAXIMUM_POOL_SIZE"]) % 256 == 0
    assert int(result["AISTACK_TENSORFLOW_MEMORY_LIMIT"]) * MIB <= max(slice_bytes, MIB)
    assert float(result["XLA_PYTHON_CLIENT_MEM_FRACTION"]) <= fraction


def test_caps_leave_room_for_the_context() -> None:
    result = caps(20 * GIB, 80 * GIB)
    assert result == {
        "AISTACK_MEMORY_FRACTION": "0.243750",
        "AISTACK_RMM_MAXIMUM_POOL_SIZE": str(20 * GIB - CONTEXT_BYTES),
        "CUPY_GPU_MEMORY_LIMIT": str(20 * GIB - CONTEXT_BYTES),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "AISTACK_TENSORFLOW_MEMORY_LIMIT": str(20 * 1024 - 512),
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.231562",
    }


def test_a_context_that_was_measured_is_left_free_as_it_is() -> None:
    assert int(caps(20 * GIB, 80 * GIB, 700 * MIB)["CUPY_GPU_MEMORY_LIMIT"]) == (
        20 * GIB - 700 * MIB
    )


def test_a_tiny_slice_keeps_most_of_itself() -> None:
    assert int(caps(400 * MIB, 80 * GIB)["CUPY_GPU_MEMORY_LIMIT"]) == 300 * MIB


def test_a_process_that_sees_its_slice_alone_may_take_nearly_all_of_it() -> None:
    assert float(caps(16 * GIB, 16 * GIB)["AISTACK_MEMORY_FRACTION"]) == pytest.approx(
        0.96875, abs=1e-4
    )


def slice_of(kind: SliceKind, **more: int) -> Slice:
    return Slice(
        device_id="GPU-a",
        kind=kind,
        fraction=Fraction(1, 4),
        memory_bytes=20 * GIB,
        **more,
    )


def test_what_a_process_sees_as_the_total_depends_on_what_holds_it() -> None:
    share, part = (
        slice_of(SliceKind.SHARE),
        slice_of(SliceKind.MIG, gpu_slices=2, compute_slices=1),
    )
    levels = (Enforcement.L0, Enforcement.L1, Enforcement.L2, Enforcement.L3)
    assert [seen_bytes(share, 80 * GIB, level) // GIB for level in levels] == [
        80,
        80,
        80,
        20,
    ]
    assert seen_bytes(slice_of(SliceKind.MIG), 80 * GIB) == 20 * GIB
    assert seen_bytes(part, 80 * GIB) == 40 * GIB


def test_jax_takes_nothing_in_advance_where_it_may_be_suspended(lease) -> None:
    held = lease(slice_of(SliceKind.SHARE))
    assert for_suspension(held) == {}
    growing = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    assert for_suspension(replace(held, residence=DeviceState())) == growing


# Total memory as the driver reports it (MiB), slices, instance memory (MiB), and
# NVIDIA's name for it.
NAMES = [
    (40536, 1, 4864, "1g.5gb"),
    (40536, 2, 9856, "2g.10gb"),
    (40536, 7, 39936, "7g.40gb"),
    (81559, 1, 9728, "1g.10gb"),
    (81559, 1, 19968, "1g.20gb"),
    (81559, 3, 40448, "3g.40gb"),
    (95830, 1, 11264, "1g.12gb"),
    (95830, 3, 47488, "3g.47gb"),
    (143771, 1, 16384, "1g.18gb"),
    (143771, 2, 33280, "2g.35gb"),
    (143771, 3, 71424, "3g.71gb"),
    (143771, 7, 142848, "7g.141gb"),
    (183359, 1, 21504, "1g.23gb"),
    (183359, 3, 90880, "3g.90gb"),
    (24258, 1, 5952, "1g.6gb"),
    (97887, 1, 24192, "1g.24gb"),
]


@pytest.mark.parametrize(("total", "slices", "memory", "name"), NAMES)
def test_profiles_have_the_names_nvidia_gives_them(
    total: int, slices: int, memory: int, name: str
) -> None:
    assert profile_name(slices, slices, memory * MIB, total * MIB) == name


def test_a_compute_instance_names_both_its_parts() -> None:
    assert profile_name(3, 1, 71424 * MIB, 143771 * MIB) == "1c.3g.71gb"
