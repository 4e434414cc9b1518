"""What CUDA shows a process: devices, a driver that fails, none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.providers.nvidia import device_probe
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY

UUID = "11111111-1111-1111-1111-111111111111"
OTHER = "abababab-abab-abab-abab-abababababab"
CONTEXT = 426 << 20
CODE = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['ask_devices']()))"


def see(**environment: str) -> Any:
    """What a child of this environment is told by its driver."""
    program = [sys.executable, "-I", "-S", "-c", CODE, device_probe.__file__]
    env = {**os.environ, **environment}
    return json.loads(subprocess.check_output(program, env=env, timeout=30))


def test_the_visibility_names_it() -> None:
    assert VISIBILITY.probe == device_probe.__name__


def test_without_a_driver_it_says_so() -> None:
    answer = see(LD_LIBRARY_PATH="")
    if "visible" in answer:
        pytest.skip("this machine has a CUDA driver")
    assert answer == {"problem": "there is no CUDA driver (libcuda.so.1)"}


def test_devices_are_told_as_the_process_sees_them(driver: str) -> None:
    assert see(LD_LIBRARY_PATH=driver) == {
        "visible": [f"GPU-{UUID}", f"GPU-{OTHER}"],
        "memory_total": 40 << 30,
        "memory_free": (40 << 30) - 2 * CONTEXT,
        "multiprocessors": 132,
    }


def test_mig_instance_is_spelled_as_it_was_asked_for(driver: str) -> None:
    answer = see(LD_LIBRARY_PATH=driver, CUDA_VISIBLE_DEVICES=f"MIG-{UUID}")
    assert answer["visible"][0] == f"MIG-{UUID}"


def test_no_device_is_an_answer(driver: str) -> None:
    assert see(LD_LIBRARY_PATH=driver, FAKE_CUDA="none")["visible"] == []


def test_driver_that_fails_is_no_answer(driver: str) -> None:
    answer = see(LD_LIBRARY_PATH=driver, FAKE_CUDA="broken")
    assert answer == {"problem": "cuInit failed: unknown error (999)", "passes": False}


def test_a_server_that_is_not_ready_yet_passes(driver: str, tmp_path: Path) -> None:
    (tmp_path / "starting").touch()
    (tmp_path / "control").touch()
    given = {
        "LD_LIBRARY_PATH": driver,
        "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path),
        "FAKE_CUDA_NOT_READY": str(tmp_path / "starting"),
    }
    answer = see(**given)
    assert answer == {"problem": "cuInit failed: unknown error (807)", "passes": True}
    assert "visible" in see(**given)
