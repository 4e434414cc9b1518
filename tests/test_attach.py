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
from jupyter_aistack.attach import attach, cuda_started
from jupyter_aistack.exceptions import DeviceTouched
from jupyter_aistack.wire import Preparation

wanted = Preparation(environment={"CUDA_VISIBLE_DEVICES": "GPU-7"}, expects={"visible": ["GPU-7"]})
assert not cuda_started()
driver = ctypes.CDLL("libcuda.so.1")
assert not cuda_started(), "a library that is loaded is not yet CUDA that has started"
attach(wanted)
assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-7"
os.environ["CUDA_VISIBLE_DEVICES"] = "before"
driver.cuInit(0)
assert cuda_started()
try:
    attach(wanted)
except DeviceTouched as error:
    print(error.message)
assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A driver library that knows whether CUDA has started, as the real one does."""
    source = tmp_path / "cuda.c"
    source.write_text(LIBCUDA)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source], check=True)
    return tmp_path


def test_a_process_that_has_started_cuda_is_left_alone_and_told_the_way_out(driver: Path) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "restart the kernel" in done.stdout
