"""How much memory a GPU has, as drivers old and new, with and without memory of its
own, tell it.
"""

from __future__ import annotations

from dataclasses import replace

import psutil

from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.providers.nvidia.gpu_memory import GPUMemory
from tests.fakes.nvml.states import H200_BYTES, h200

SETUP = """
from jupyter_aistack.providers.nvidia.gpu_memory import memory_of
from jupyter_aistack.providers.nvidia.nvml import NVML
nvml = NVML()
def memory(is_cut=False):
    return memory_of(nvml, nvml.query("nvmlDeviceGetHandleByIndex", 0), is_cut=is_cut)
"""
USED = h200(used=GIB, reserved=600 * MIB)
FREE = H200_BYTES - GIB - 600 * MIB


def test_memory_as_drivers_tell_it(fake_nvml) -> None:
    child = fake_nvml.python(USED, SETUP)
    # What the driver reserves is not in use, where it tells that.
    used = GPUMemory(total=H200_BYTES, used=GIB, free=FREE)
    assert child("memory()") == used
    fake_nvml.change(USED + "fail nvmlDeviceGetMemoryInfo_v2 25\n")
    assert child("memory()") == replace(used, used=GIB + 600 * MIB)


def test_memory_that_is_not_its_own_or_not_to_be_read(fake_nvml) -> None:
    child = fake_nvml.python(h200(unified=1), SETUP)
    memory = child("memory()")
    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.free <= memory.total
    assert memory.used == memory.total - memory.free

    fake_nvml.change(h200(noperm=1))
    assert child("memory()") is None
    fake_nvml.change(h200(mig=1, unified=1))
    assert child("memory(is_cut=True)") is None
