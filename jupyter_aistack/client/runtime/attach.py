"""Giving a running process what its lease says: environment, cores, threads and memory
caps.

The devices a process sees are fixed when CUDA starts, once and for good. So before
anything is changed, :func:`cuda_started` asks the driver library itself; asking torch
alone would miss CuPy, JAX and the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_aistack.core.enforcement.memory_caps import merge_caps
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.enforcement.verification import Verdict
from jupyter_aistack.exceptions import DeviceInUse
from jupyter_aistack.system.processes import own_threads
from jupyter_aistack.system.verify import child

from .memory_caps import cap_memory

CUDA_ERROR_NOT_INITIALIZED = 3
HSA_STATUS_ERROR_NOT_INITIALIZED = 0x100B
LAUNCH_LEASES = frozenset(os.environ.get("AISTACK_LEASE", "").split(",")) - {""}
"""Ids of the leases this process was started with; its launcher watches over them."""

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_FORCED = (
    *_VISIBLE,
    "CUDA_",
    "AISTACK_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMEXPR_",
    "VECLIB_",
)


@dataclass(frozen=True, kw_only=True)
class SavedEnvironment:
    """What `attach` changed, so that `detach` can put it back."""

    environment: Mapping[str, str | None]
    cores: frozenset[int]
    threads: int | None


def cuda_started() -> bool:
    """Whether this process has started CUDA, and so chosen its devices for good."""
    if not _is_mapped("libcuda.so"):
        return False
    count = ctypes.c_int()
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        code = driver.cuDeviceGetCount(ctypes.byref(count))
        return bool(code != CUDA_ERROR_NOT_INITIALIZED)
    return False


def rocm_started() -> bool:
    """Whether this process has started ROCm's runtime, beneath HIP and OpenCL, and so
    chosen its AMD devices.
    """
    if not _is_mapped("libhsa-runtime64.so"):
        return False
    major = ctypes.c_uint16()
    with contextlib.suppress(OSError, AttributeError):
        runtime = ctypes.CDLL("libhsa-runtime64.so.1")
        status = runtime.hsa_system_get_info(0, ctypes.byref(major))
        return bool(status != HSA_STATUS_ERROR_NOT_INITIALIZED)
    return False


def _started_runtime() -> str:
    if cuda_started():
        return "CUDA"
    return "ROCm" if rocm_started() else ""


def check_untouched() -> None:
    """Raise `DeviceInUse` when this process can no longer change its devices; nothing
    is changed.
    """
    started = _started_runtime()
    if started:
        raise DeviceInUse(
            f"{started} has already started in this process, so it cannot change devices any more: restart the kernel, "
            f"then request the slice before the first {started} call (or start the kernel with a slice)"
        )


def attach(prepared: Preparation) -> SavedEnvironment:
    """Apply a preparation to this process; what a user has set for a framework is kept,
    of two caps the lower.

    Raises:
        DeviceInUse: CUDA or ROCm has already started and the preparation names devices.
    """
    if prepared.expects.visible or _changes_rocm(prepared):
        check_untouched()
    wanted = merge_caps(os.environ, prepared.environment, forced=_FORCED)
    before = SavedEnvironment(
        environment={name: os.environ.get(name) for name in wanted},
        cores=_own_cores(),
        threads=_torch_threads(),
    )
    # From here on all or nothing: a caller that fails must find the process as it was.
    try:
        os.environ.update(wanted)
        _bind_threads(prepared.cores)
        _limit_threads(prepared.environment.get("OMP_NUM_THREADS"))
        cap_memory(prepared.environment)
    except BaseException:
        detach(before)
        raise
    return before


def _changes_rocm(prepared: Preparation) -> bool:
    """Whether AMD devices come with it that this process does not see yet."""
    devices = prepared.environment.get("ROCR_VISIBLE_DEVICES")
    return bool(devices) and devices != os.environ.get("ROCR_VISIBLE_DEVICES")


def detach(before: SavedEnvironment) -> None:
    """Put back what `attach` changed, as far as a running process allows."""
    for name, value in before.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _bind_threads(sorted(before.cores))
    threads = before.threads or len(before.cores) or 1
    _limit_threads(str(threads))
    cap_memory(os.environ)


def restore_environment(prepared: Preparation) -> None:
    """Undo a preparation this process was started with, after its lease is over.

    It then sees no device, and may use the cores its parent may use.
    """
    for name, value in prepared.environment.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    for name in _VISIBLE:
        if name in prepared.environment:
            os.environ[name] = ""
    cap_memory(os.environ)
    if prepared.cores and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(os.getppid()))
        _bind_threads(cores)
        _limit_threads(str(len(cores)))


def verify(expects: Expectation, is_client: child.IsClient | None = None) -> Verdict:
    """Find out what a process with our environment really sees; see
    :func:`jupyter_aistack.system.verify.child.verify`.

    A child finds out, and this process is left untouched by CUDA.
    """
    return child.verify(
        expects, interpreter=sys.executable, environment=os.environ, is_client=is_client
    )


def start_probe() -> child.ProbeResult:
    """A running child that sees what this process would, for another process to judge;
    close it. Raises as `ProbeResult` does.
    """
    return child.ProbeResult(interpreter=sys.executable, environment=os.environ)


def _is_mapped(library: str) -> bool:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return any(library in line for line in maps)
    except OSError:
        return False


def _own_cores() -> frozenset[int]:
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def _bind_threads(cores: Sequence[int]) -> None:
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in own_threads():
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            os.sched_setaffinity(thread, cores)


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return None
    return int(torch.get_num_threads())


def _limit_threads(count: str | None) -> None:
    """Tell the thread pools that exist already; later ones read the environment."""
    if not count:
        return
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(int(count))
    if "numpy" in sys.modules:
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            threadpool_limits(int(count))
