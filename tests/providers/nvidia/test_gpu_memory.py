"""How much memory a GPU has, as drivers old and new, with and without memory of its
own, tell it.
"""

from __future__ import annotations

from dataclasses import replace

import psutil

from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.providers.nvidia.gpu_memory import GPUMemory
from tests.fakes.nvml.states import H200_BYTES, H200_RESERVED, h200

SETUP = """
from jupyter_aistack.providers.nvidia.gpu_memory import memory_of
from jupyter_aistack.providers.nvidia.nvml import NVML
nvml = NVML()
def memory(is_cut=False):
    return memory_of(nvml, nvml.query("nvmlDeviceGetHandleByIndex", 0), is_cut=is_cut)
"""
USED = h200(used=GIB)
TOTAL = H200_BYTES + H200_RESERVED
FREE = H200_BYTES - GIB


def test_memory_as_drivers_tell_it(fake_nvml) -> None:
    child = fake_nvml.python(USED, SETUP)
    # What the driver reserves is not in use, where it tells that, and nobody's to have.
    used = GPUMemory(total=TOTAL, usable=H200_BYTES, used=GIB, free=FREE)
    assert child("memory()") == used
    fake_nvml.change(USED + "fail nvmlDeviceGetMemoryInfo_v2 25\n")
    assert child("memory()") == replace(used, usable=TOTAL, used=GIB + H200_RESERVED)


def test_shares_add_up_to_what_processes_can_have_and_no_more(fake_nvml) -> None:
    child = fake_nvml.python(h200(), "from tests.fakes.nvml.states import SETUP")
    child.run("exec(SETUP)")
    (device,) = child("provider.discover('box')")
    assert (device.memory_bytes, device.free_bytes) == (H200_BYTES, H200_BYTES)


def test_memory_that_is_not_its_own_or_not_to_be_read(fake_nvml) -> None:
    child = fake_nvml.python(h200(unified=1), SETUP)
    memory = child("memory()")
    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.free <= memory.total
    assert memory.used is None, "what the host uses is no use of the GPU"

    fake_nvml.change(h200(noperm=1))
    assert child("memory()") is None
    fake_nvml.change(h200(mig=1, unified=1))
    assert child("memory(is_cut=True)") is None
