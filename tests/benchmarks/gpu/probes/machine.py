"""Probes of the machine: what is there, how CUDA starts, what the host's memory does."""

from __future__ import annotations

import glob
import importlib
import json
import mmap
import os
import shutil
import subprocess
import sys
from importlib import metadata

from jupyter_aistack.core.model.units import GIB, MIB
from tests.benchmarks.gpu.probes.children import Child, child
from tests.benchmarks.gpu.probes.nvml import Nvml
from tests.benchmarks.gpu.probes.reporting import (
    Finding,
    Findings,
    Limits,
    host_memory_gib,
    shell,
    timed,
)

SMI = (
    "name,uuid,driver_version,persistence_mode,compute_mode,mig.mode.current,"
    "memory.total,memory.reserved,memory.used,power.draw"
)
PROGRAMS = ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server", "cuda-checkpoint")
FOLDERS = (
    *("/usr/local/nvidia/bin", "/usr/local/nvidia/sbin", "/usr/sbin"),
    *("/usr/local/cuda/bin", "/opt/nvidia/bin"),
)
LIBRARIES = (
    *("torch", "cupy-cuda13x", "jax", "cuda-core", "cuda-bindings"),
    *("nvidia-ml-py", "psutil", "numba-cuda"),
)
AT_ONCE, TOUCHED_GIB = 8, 60


def facts(limits: Limits) -> Findings:
    """Machine, driver, programs, versions, host memory."""

    def finding(name: str, **values: object) -> Finding:
        return Finding(probe="facts", name=name, values=values)

    system = os.uname()
    yield finding(
        "machine",
        kernel=system.release,
        cores=os.cpu_count(),
        python=sys.version.split()[0],
        memory_gib=host_memory_gib(),
        nspid=shell("grep NSpid /proc/self/status"),
        shm=shell("df -h /dev/shm | tail -1"),
    )
    yield finding(
        "smi", words=shell(f"nvidia-smi --query-gpu={SMI} --format=csv,noheader")
    )
    yield finding(
        "driver",
        module=shell("head -1 /proc/driver/nvidia/version"),
        profiling=shell("grep RmProfilingAdminOnly /proc/driver/nvidia/params"),
        persistenced=shell("ps ax | grep -c '[n]vidia-persistenced'"),
    )
    yield finding("programs", **{name: places_of(name) for name in PROGRAMS})
    yield finding(
        "groups",
        kind=shell("stat -fc %T /sys/fs/cgroup"),
        dmem=shell("head -3 /sys/fs/cgroup/dmem.capacity"),
        own=shell("cat /proc/self/cgroup"),
    )
    yield finding("versions", **versions())
    yield finding(
        "checkpoint_library", import_error=import_error("cuda.core.checkpoint")
    )


def places_of(program: str) -> list[str]:
    """Where a program is: on PATH, else beside it."""
    on_path = shutil.which(program)
    beside = [path for folder in FOLDERS for path in glob.glob(f"{folder}/{program}")]
    return [on_path] if on_path else beside


def versions() -> dict[str, str]:
    """Versions of the libraries that are there."""
    result = {}
    for name in LIBRARIES:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return result


def import_error(module: str) -> str:
    """Why a module cannot be imported; empty when it can."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def start(limits: Limits) -> Findings:
    """Seconds of cuInit and of a context; what a bare context holds; what NVML and CUDA
    call the memory; who is listed.
    """

    def finding(name: str, **values: object) -> Finding:
        return Finding(probe="start", name=name, values=values)

    nvml = Nvml()
    yield finding("nvml_memory", **memory_by_version(nvml))
    for name in ("cold", "warm"):
        before = nvml.used_mib()
        with child("context") as process:
            answer = process.hear()
            held = nvml.used_mib() - before
            yield finding(
                name, **answer, held_mib=held, listed=nvml.listed(process.pid)
            )
    processes = [Child("context") for _ in range(AT_ONCE)]
    answers, seconds = timed(lambda: [process.hear() for process in processes])
    for process in processes:
        process.end()
    started = [(each.get("init_s"), each.get("context_s")) for each in answers]
    yield finding("eight_at_once", seconds=seconds, init_and_context_s=started)
    for name, folder in (("pipe_null", "/dev/null"), ("pipe_missing", "/tmp/none")):
        with child("context", CUDA_MPS_PIPE_DIRECTORY=folder) as process:
            yield finding(name, **process.hear(20))
    with child("initialised") as process:
        answer = process.hear(20)
        yield finding("init_only", **answer, listed=nvml.listed(process.pid))


def memory_by_version(nvml: Nvml) -> dict[str, list[int] | str]:
    """Total, used and free by both versions of the call, and what is reserved."""
    result: dict[str, list[int] | str] = {}
    versions = {"v1": None, "v2": getattr(nvml.library, "nvmlMemory_v2", None)}
    for name, version in versions.items():
        memory = nvml.ask("nvmlDeviceGetMemoryInfo", version)
        if isinstance(memory, str):
            result[name] = memory
            continue
        fields = ("total", "reserved", "used", "free")
        known = [getattr(memory, field, None) for field in fields]
        result[name] = [size // MIB for size in known if size is not None]
    return result


def host(limits: Limits) -> Findings:
    """Does the host's memory grow as it is used; is pinned memory rounded, and kept?"""

    def finding(name: str, **values: object) -> Finding:
        return Finding(probe="host", name=name, values=values)

    yield finding(
        "before",
        memory_gib=host_memory_gib(),
        overcommit=shell("cat /proc/sys/vm/overcommit_memory"),
    )
    command = [sys.executable, "-m", "tests.benchmarks.gpu.host_memory"]
    with subprocess.Popen(
        [*command, str(TOUCHED_GIB)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield finding("touched", **json.loads(line))
    yield finding("touching_ended", status=process.returncode)
    yield finding("sixty_gib_at_once", error=mapping_error(TOUCHED_GIB))
    with child("pinned") as pinning:
        yield finding("pinned", **pinning.hear())


def mapping_error(size_gib: int) -> str:
    """Why so much cannot be mapped at once; empty when it can."""
    try:
        mmap.mmap(-1, size_gib * GIB).close()
    except OSError as error:
        return str(error)
    return ""
