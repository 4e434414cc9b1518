from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIBCUDA = """
static int started;
int cuInit(unsigned flags) { (void)flags; started = 1; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return started ? 0 : 3; }
"""

PROGRAM = """
import ctypes, os
from jupyter_aistack.client.runtime.attach import attach
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY
from jupyter_aistack.system.runtimes import started_runtime
from jupyter_aistack.exceptions import DeviceInUse
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation

wanted = Preparation(
    environment={"CUDA_VISIBLE_DEVICES": "GPU-7"},
    expects=Expectation(visible=("GPU-7",)),
    visibility=(VISIBILITY,),
)
assert not started_runtime()
driver = ctypes.CDLL("libcuda.so.1")
assert not started_runtime(), "a library that is loaded is not yet CUDA that has started"
attach(wanted)
assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-7"
os.environ["CUDA_VISIBLE_DEVICES"] = "before"
driver.cuInit(0)
assert started_runtime() == "CUDA"
try:
    attach(wanted)
except DeviceInUse as error:
    print(error.message)
assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
"""


LIBHSA = """
static int started;
int hsa_init(void) { started = 1; return 0; }
int hsa_system_get_info(int attribute, void *value) { (void)attribute; (void)value; return started ? 0 : 0x100B; }
"""

AMD_PROGRAM = """
import ctypes, os
from jupyter_aistack.client.runtime.attach import attach, restore_environment
from jupyter_aistack.providers.amd.visibility import VISIBILITY
from jupyter_aistack.system.runtimes import started_runtime
from jupyter_aistack.exceptions import DeviceInUse
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation

wanted = Preparation(
    environment={"ROCR_VISIBLE_DEVICES": "GPU-7", "HIP_VISIBLE_DEVICES": "0"},
    visibility=(VISIBILITY,),
)
assert not started_runtime()
runtime = ctypes.CDLL("libhsa-runtime64.so.1")
os.environ["HIP_VISIBLE_DEVICES"] = "3"
attach(wanted)
print(os.environ["ROCR_VISIBLE_DEVICES"], os.environ["HIP_VISIBLE_DEVICES"])
restore_environment(wanted)
print([os.environ["ROCR_VISIBLE_DEVICES"], os.environ["HIP_VISIBLE_DEVICES"]])
runtime.hsa_init()
try:
    attach(wanted)
except DeviceInUse as error:
    print(error.message)
assert os.environ["ROCR_VISIBLE_DEVICES"] == ""
os.environ["ROCR_VISIBLE_DEVICES"] = "GPU-7"
attach(wanted)  # as a worker that was born with it
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """Driver libraries that know whether CUDA and ROCm have started, as the real ones
    do.
    """
    for name, text in (("libcuda.so.1", LIBCUDA), ("libhsa-runtime64.so.1", LIBHSA)):
        source = tmp_path / "driver.c"
        source.write_text(text)
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{name}",
            "-o",
            str(tmp_path / name),
            str(source),
        ]
        subprocess.run(command, check=True)
    return tmp_path


def test_a_process_that_has_started_cuda_is_left_alone_and_told_the_way_out(
    driver: Path,
) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "restart the kernel" in done.stdout


def test_rocm_that_has_started_is_left_alone_and_a_lease_that_is_over_shows_no_amd_gpu(
    driver: Path,
) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "PATH": "/usr/bin:/bin"}
    program = [sys.executable, "-c", AMD_PROGRAM]
    done = subprocess.run(
        program, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    shown, hidden, told = done.stdout.splitlines()
    assert (shown, hidden) == ("GPU-7 0", "['', '']")
    assert "before the first ROCm call" in told
