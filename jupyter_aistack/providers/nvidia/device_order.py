"""In which order CUDA numbers the GPUs. Unless ``CUDA_DEVICE_ORDER`` says
``PCI_BUS_ID``, the fastest is the first and the rest is CUDA's to know, so it is asked.

Run as a program it prints the UUIDs as JSON; it needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

ORDER_SECONDS = 30.0
"""How long CUDA may take to start, in a child of its own: on a host of eight
GPUs the first start takes seven seconds and more."""
_CUTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def cuda_order(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The UUIDs of all GPUs without their ``GPU-``, in CUDA's order; None where CUDA
    does not say.

    Args:
        environment: of the process whose numbers are meant.
    """
    shown = {k: v for k, v in environment.items() if k != "CUDA_VISIBLE_DEVICES"}
    # No client of whatever MPS daemon there is: its server may not be ready.
    shown["CUDA_MPS_PIPE_DIRECTORY"] = os.devnull
    try:
        asked = subprocess.run(
            [sys.executable, "-I", "-S", __file__],
            env=shown,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ORDER_SECONDS,
            check=True,
        )
        return tuple(str(uuid) for uuid in json.loads(asked.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _uuids(driver: Any) -> list[str]:
    count = ctypes.c_int()
    _check(driver.cuInit(0))
    _check(driver.cuDeviceGetCount(ctypes.byref(count)))
    return [_uuid(driver, index) for index in range(count.value)]


def _uuid(driver: Any, index: int) -> str:
    device = ctypes.c_int()
    uuid = ctypes.create_string_buffer(16)
    _check(driver.cuDeviceGet(ctypes.byref(device), index))
    get = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    _check(get(uuid, device))
    return "-".join(uuid.raw.hex()[start:end] for start, end in _CUTS)


def _check(result: int) -> None:
    if result:
        raise OSError(f"CUDA answers with error {result}")


if __name__ == "__main__":
    print(json.dumps(_uuids(ctypes.CDLL("libcuda.so.1"))))
