"""What CUDA shows a process: loaded by path into the short-lived child of
:mod:`jupyter_aistack.system.verify.probe`.

It uses the standard library alone, so any interpreter can run this file.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from typing import Any

CUDA_ERROR_NO_DEVICE = 100
ATTRIBUTE_MULTIPROCESSOR_COUNT = 16
NOT_READY = frozenset({805, 806, 807})
"""What a newcomer gets while an MPS server starts, or ends the work of a client:
CUDA_ERROR_MPS_CONNECTION_FAILED, _RPC_FAILURE and _SERVER_NOT_READY (NVIDIA MPS
documentation, troubleshooting). They pass.
"""


class CudaError(Exception):
    """A call of the driver failed; the message says which and how.

    Attributes:
        result: the driver's code.
    """

    def __init__(self, message: str, result: int) -> None:
        super().__init__(message)
        self.result = result


def ask_devices() -> dict[str, Any]:
    """The devices of this process, or ``problem``: why the driver does not say, and
    ``passes``: whether a new process may find it otherwise soon. Starts CUDA, whose
    contexts are kept until `release`.
    """
    try:
        return _devices(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return {"problem": "there is no CUDA driver (libcuda.so.1)"}
    except AttributeError as error:
        return {"problem": str(error)}
    except CudaError as error:
        return {"problem": str(error), "passes": error.result in NOT_READY}


def release() -> None:
    """Release all contexts, so that a server of MPS learns of this client's end at
    once.
    """
    for driver, device in _retained:
        driver.cuDevicePrimaryCtxRelease_v2(device)


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
    raise CudaError(f"{call} failed: {reason} ({result})", result)
