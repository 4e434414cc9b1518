"""What the probe sees of its process: devices, a driver that fails or hangs, none."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.system.verify import probe

SOURCE = Path(probe.__file__)


UUID = "11111111-1111-1111-1111-111111111111"


OTHER = "abababab-abab-abab-abab-abababababab"


def see(*command: str, **environment: str) -> Any:
    """What the child prints, run as the provisioner runs it unless told otherwise."""
    program = command or ("-I", "-S", str(SOURCE))
    env = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
    }
    env = {**env, **environment}
    return json.loads(
        subprocess.check_output([sys.executable, *program], env=env, timeout=30)
    )


def test_it_uses_the_standard_library_only() -> None:
    tree = ast.parse(SOURCE.read_text())
    found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    found |= {
        alias.name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for alias in n.names
    }
    assert {name.partition(".")[0] for name in found} <= set(sys.stdlib_module_names)


def test_without_a_driver_it_says_so_and_tells_the_rest() -> None:
    found = see(OMP_NUM_THREADS="3", LD_LIBRARY_PATH="")
    if found["visible"] is not None:
        pytest.skip("this machine has a CUDA driver")
    assert found["cuda"] == "there is no CUDA driver (libcuda.so.1)"
    assert found["cores"] == sorted(os.sched_getaffinity(0))
    assert found["threads"] == "3"


def test_it_runs_as_a_module_too() -> None:
    assert see("-m", "jupyter_aistack.system.verify.probe").keys() >= {
        "visible",
        "cores",
        "threads",
        "memory_total",
    }


def test_devices_are_told_as_the_process_sees_them(driver: str) -> None:
    found = see(LD_LIBRARY_PATH=driver)
    assert found["visible"] == [f"GPU-{UUID}", f"GPU-{OTHER}"]
    assert (found["memory_total"], found["memory_free"], found["multiprocessors"]) == (
        40 << 30,
        40 << 30,
        132,
    )
    assert "cuda" not in found


def test_mig_instance_is_spelled_as_it_was_asked_for(driver: str) -> None:
    found = see(LD_LIBRARY_PATH=driver, CUDA_VISIBLE_DEVICES=f"MIG-{UUID}")
    assert found["visible"][0] == f"MIG-{UUID}"


def test_no_device_is_an_answer(driver: str) -> None:
    assert see(LD_LIBRARY_PATH=driver, FAKE_CUDA="none")["visible"] == []


def test_driver_that_fails_is_no_answer(driver: str) -> None:
    found = see(LD_LIBRARY_PATH=driver, FAKE_CUDA="broken")
    assert (found["visible"], found["cuda"]) == (
        None,
        "cuInit failed: unknown error (999)",
    )


def test_driver_that_hangs_is_left_behind(driver: str) -> None:
    code = "from jupyter_aistack.system.verify import probe as seen; seen.CUDA_SECONDS = 0.2; seen.main()"
    found = see("-c", code, LD_LIBRARY_PATH=driver, FAKE_CUDA="hangs")
    assert found["visible"] is None
    assert "did not answer" in found["cuda"]
