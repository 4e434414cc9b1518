"""How much memory a GPU has, as drivers old and new, with and without memory of its
own, tell it.
"""

from __future__ import annotations

import psutil
import pytest

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


@pytest.mark.parametrize(
    ("driver", "used"),
    [("", GIB), ("fail nvmlDeviceGetMemoryInfo_v2 25\n", GIB + 600 * MIB)],
    ids=["new", "old"],
)
def test_what_the_driver_reserves_is_not_in_use_where_it_tells_that(
    fake_nvml, driver: str, used: int
) -> None:
    memory = fake_nvml.python(USED + driver, SETUP)("memory()")
    assert memory == GPUMemory(total=H200_BYTES, used=used, free=FREE)


def test_a_gpu_without_memory_of_its_own_works_in_the_hosts(fake_nvml) -> None:
    memory = fake_nvml.python(h200(unified=1), SETUP)("memory()")
    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.free <= memory.total
    assert memory.used == memory.total - memory.free


@pytest.mark.parametrize(
    ("state", "asked"),
    [(h200(noperm=1), "memory()"), (h200(mig=1, unified=1), "memory(is_cut=True)")],
)
def test_memory_that_may_not_be_read_is_unknown(fake_nvml, state, asked) -> None:
    assert fake_nvml.python(state, SETUP)(asked) is None
