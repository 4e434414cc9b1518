"""The probe: run as a short-lived child, it prints what a process with its environment
really sees, as a JSON object.

``visible`` (UUIDs of the devices CUDA shows), ``memory_total`` and ``memory_free``
(bytes, over all of them) and ``multiprocessors`` (likewise); all null when CUDA does
not answer, with the reason in ``cuda``. ``cores`` (CPU affinity), ``threads``
(OMP_NUM_THREADS), ``pid``. With ``--hold`` it keeps its contexts after that until its
input ends, so that it is on a server's list of clients meanwhile. It
uses the standard library alone, so any interpreter can run this file, and it ends
within seconds whatever the driver does.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import select
import sys
import threading
from typing import Any

CUDA_SECONDS = 8.0
HOLD_SECONDS = 10.0
"""The longest it keeps its contexts."""

RELEASE_SECONDS = 0.5
NOTHING = {
    "visible": None,
    "memory_total": None,
    "memory_free": None,
    "multiprocessors": None,
}
CUDA_ERROR_NO_DEVICE = 100
ATTRIBUTE_MULTIPROCESSOR_COUNT = 16


class CudaError(Exception):
    """A call of the driver failed; the message says which and how."""


def report() -> dict[str, Any]:
    """What this process sees. Starts CUDA in it, so never call this in a process that
    goes on living.
    """
    seen: dict[str, Any] = dict(NOTHING)
    # In a thread: a driver that hangs must not keep the rest from being reported.
    asking = threading.Thread(target=_ask_cuda, args=(seen,), daemon=True)
    asking.start()
    asking.join(CUDA_SECONDS)
    if asking.is_alive():
        seen = dict(NOTHING)
        seen["cuda"] = f"the driver did not answer within {CUDA_SECONDS:.0f} seconds"
    return {
        **seen,
        "cores": _cores(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "pid": os.getpid(),
    }


def _cores() -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


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
        return {
            "visible": [],
            "memory_total": 0,
            "memory_free": 0,
            "multiprocessors": 0,
        }
    _check(driver, "cuInit", started)
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    devices = [_device(driver, index) for index in range(count.value)]
    return {
        "visible": [uuid for uuid, _, _, _ in devices],
        "memory_free": sum(free for _, free, _, _ in devices),
        "memory_total": sum(total for _, _, total, _ in devices),
        "multiprocessors": sum(number for _, _, _, number in devices),
    }


def _device(driver: Any, index: int) -> tuple[str, int, int, int]:
    """UUID, free and total memory in bytes, and number of multiprocessors of one
    device.

    Its context is kept, as a client of MPS is listed as long as it has a context; the
    number of multiprocessors is asked for after it is there, as it is a limit of MPS
    that makes it smaller.
    """
    device = ctypes.c_int()
    number = ctypes.c_int()
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), index))
    free, total = _memory(driver, device)
    attribute = driver.cuDeviceGetAttribute(
        ctypes.byref(number), ATTRIBUTE_MULTIPROCESSOR_COUNT, device
    )
    _check(driver, "cuDeviceGetAttribute", attribute)
    return _uuid(driver, device), free, total, number.value


def _uuid(driver: Any, device: ctypes.c_int) -> str:
    uuid = ctypes.create_string_buffer(16)
    # Only _v2 names a MIG instance; older drivers have none of it.
    get = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    _check(driver, "cuDeviceGetUuid", get(uuid, device))
    return _spelled(uuid.raw.hex())


def _memory(driver: Any, device: ctypes.c_int) -> tuple[int, int]:
    """Free and total memory as a process sees them: limits of MPS and cgroups show in a
    context only, not on the device.

    A limit of MPS shows in what is free alone, a limit of a cgroup in both
    (ai-dynamo/dynamo, measured with driver 615).
    """
    context = ctypes.c_void_p()
    free = ctypes.c_size_t()
    total = ctypes.c_size_t()
    retained = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    _check(driver, "cuDevicePrimaryCtxRetain", retained)
    _retained.append((driver, device))
    _check(driver, "cuCtxSetCurrent", driver.cuCtxSetCurrent(context))
    measured = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    _check(driver, "cuMemGetInfo", measured)
    return free.value, total.value


_retained: list[tuple[Any, ctypes.c_int]] = []


def _release() -> None:
    """Release all contexts, so that a server of MPS learns of this client's end at
    once.
    """
    for driver, device in _retained:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _spelled(digits: str) -> str:
    """A UUID as NVML spells it. CUDA gives bare digits; whether they are a MIG
    instance's is known from the environment.
    """
    cuts = (0, 8, 12, 16, 20, 32)
    groups = [digits[start:end] for start, end in itertools.pairwise(cuts)]
    uuid = "-".join(groups)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    kind = "MIG" if f"MIG-{uuid}" in visible else "GPU"
    return f"{kind}-{uuid}"


def _check(driver: Any, call: str, result: int) -> None:
    if result == 0:
        return
    text = ctypes.c_char_p()
    driver.cuGetErrorString(result, ctypes.byref(text))
    reason = (text.value or b"unknown error").decode()
    raise CudaError(f"{call} failed: {reason} ({result})")


def main() -> None:
    """Print the report, stay until input ends where asked to, and exit without waiting
    for a driver that hangs.
    """
    print(json.dumps(report()), flush=True)
    if "--hold" in sys.argv[1:]:
        select.select([sys.stdin], [], [], HOLD_SECONDS)
    leaving = threading.Thread(target=_release, daemon=True)
    leaving.start()
    leaving.join(RELEASE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()
