"""What does a process with this environment really see? Run it as a short-lived child; it prints one JSON object.

``visible`` (UUIDs of the devices CUDA shows), ``memory_total`` (bytes, over all of them) and ``multiprocessors``
(likewise); all three null when CUDA does not answer, with the reason in ``cuda``. ``cores`` (CPU affinity), ``threads``
(OMP_NUM_THREADS). It uses the standard library alone, so any interpreter can run this file, and it ends within ten
seconds whatever the driver does.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import threading
from typing import Any

CUDA_SECONDS = 8.0
CUDA_ERROR_NO_DEVICE = 100
ATTRIBUTE_MULTIPROCESSOR_COUNT = 16


class CudaError(Exception):
    """A call of the driver failed; the message says which and how."""


def report() -> dict[str, Any]:
    """What this process sees. Starts CUDA in it, so never call this in a process that goes on living."""
    seen: dict[str, Any] = {"visible": None, "memory_total": None, "multiprocessors": None}
    asking = threading.Thread(target=_ask_cuda, args=(seen,), daemon=True)
    asking.start()
    asking.join(CUDA_SECONDS)
    if asking.is_alive():
        seen = {"visible": None, "memory_total": None, "multiprocessors": None}
        seen["cuda"] = f"the driver did not answer within {CUDA_SECONDS:.0f} seconds"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {**seen, "cores": cores, "threads": os.environ.get("OMP_NUM_THREADS")}


def _ask_cuda(seen: dict[str, Any]) -> None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        seen.update(_devices(driver))
    except OSError:
        seen["cuda"] = "there is no CUDA driver (libcuda.so.1)"
    except (AttributeError, CudaError) as error:
        seen["cuda"] = str(error)


def _devices(driver: Any) -> dict[str, Any]:
    started = driver.cuInit(0)
    if started == CUDA_ERROR_NO_DEVICE:
        return {"visible": [], "memory_total": 0, "multiprocessors": 0}
    _check(driver, "cuInit", started)
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    devices = [_device(driver, index) for index in range(count.value)]
    return {
        "visible": [uuid for uuid, _, _ in devices],
        "memory_total": sum(memory for _, memory, _ in devices),
        "multiprocessors": sum(number for _, _, number in devices),
    }


def _device(driver: Any, index: int) -> tuple[str, int, int]:
    """UUID, memory in bytes and number of multiprocessors of one device."""
    device, number = ctypes.c_int(), ctypes.c_int()
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), index))
    attribute = driver.cuDeviceGetAttribute(ctypes.byref(number), ATTRIBUTE_MULTIPROCESSOR_COUNT, device)
    _check(driver, "cuDeviceGetAttribute", attribute)
    uuid = ctypes.create_string_buffer(16)
    ask = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid  # only _v2 names a MIG instance
    _check(driver, "cuDeviceGetUuid", ask(uuid, device))
    return _spelled(uuid.raw.hex()), _memory(driver, device), number.value


def _memory(driver: Any, device: ctypes.c_int) -> int:
    """Memory as a process is told: limits of MPS and cgroups show in a context only, not on the device."""
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    _check(driver, "cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    try:
        _check(driver, "cuCtxSetCurrent", driver.cuCtxSetCurrent(context))
        _check(driver, "cuMemGetInfo", driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return total.value


def _spelled(digits: str) -> str:
    """A UUID as NVML spells it. CUDA gives bare digits; whether they are a MIG instance's is known from who asked."""
    cuts = (0, 8, 12, 16, 20, 32)
    uuid = "-".join(digits[a:b] for a, b in itertools.pairwise(cuts))
    asked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"MIG-{uuid}" if f"MIG-{uuid}" in asked.split(",") else f"GPU-{uuid}"


def _check(driver: Any, call: str, result: int) -> None:
    if result == 0:
        return
    text = ctypes.c_char_p()
    driver.cuGetErrorString(result, ctypes.byref(text))
    raise CudaError(f"{call} failed: {(text.value or b'unknown error').decode()} ({result})")


def main() -> None:
    """Print the report and leave without waiting for a driver that hangs."""
    print(json.dumps(report()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
