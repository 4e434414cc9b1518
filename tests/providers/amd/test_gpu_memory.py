"""How much memory an AMD GPU has, with and without memory of its own."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.units import GIB, MIB
from tests.providers.amd.test_provider import MEMORY, SETUP, gpu, mi300x, whole

LPDDR5 = 31
HBM3 = 4
MAPPED = 62 * GIB
FIND = "[(d.memory_bytes, d.used_bytes, d.problem) for d in provider.discover('box')]"


@pytest.mark.parametrize(
    ("own", "kind", "mapped", "total", "used"),
    [
        (MEMORY, HBM3, MAPPED, MEMORY, 1),
        (MEMORY, HBM3, 4 * MEMORY, MEMORY, 1),
        (512 * MIB, LPDDR5, MAPPED, MAPPED, 2),
        (96 * GIB, LPDDR5, MAPPED, 96 * GIB, 1),
        (0, HBM3, MAPPED, MAPPED, 2),
    ],
    ids=[
        "a card",
        "a card in a large host",
        "an APU",
        "an APU whose firmware sets aside most",
        "without any of its own",
    ],
)
def test_a_gpu_has_what_rocm_works_in(
    fake_amdsmi, own: int, kind: int, mapped: int, total: int, used: int
) -> None:
    # A figure of zero would be left out of the state.
    keys = {"memory": hex(own), "vram": kind, "gtt": mapped, "gtt_used": 2, "used": 1}
    child = fake_amdsmi.python(mi300x(**keys), SETUP)
    assert child(FIND) == [(total, used, "")]


def test_a_driver_too_old_to_tell_the_kind_of_memory_is_believed(fake_amdsmi) -> None:
    state = mi300x(gtt=MAPPED) + "fail amdsmi_get_gpu_vram_info 2\n"
    assert fake_amdsmi.python(state, SETUP)(FIND) == [(MEMORY, 0, "")]


def test_what_processes_hold_of_a_hosts_memory_is_theirs(fake_amdsmi, lease) -> None:
    state = mi300x(memory=512 * MIB, vram=LPDDR5, gtt=MAPPED, gtt_used=9 * GIB)
    listed = f"process gpu=0 pid=11 memory={MIB} gtt={7 * GIB} name=python3\n"
    child = fake_amdsmi.python(state + listed, SETUP)
    (device,) = child("provider.discover('box')")
    assert [use.memory_bytes for use in device.processes] == [7 * GIB]
    held = {"l-1": lease(whole(gpu()), spec="1")}
    usage = child("usage(provider, held, {'l-1': frozenset({11})})", held=held)
    assert usage["l-1"].memory_bytes == 7 * GIB
    shown = child("device_usage(provider, devices)", devices={gpu().id: gpu()})
    assert isinstance(shown[gpu().id], Usage)
    assert shown[gpu().id].memory_bytes == 9 * GIB
