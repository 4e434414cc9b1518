"""The host's CPU as a device: cores and memory. Where there is no GPU, this is what is
leased, for real.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.core.accounting.attribution import ProcessLoad
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import PrepareFailed
from jupyter_aistack.system import cgroup

from .base import Provider, Usage

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SHORTEST_SECONDS = 0.2
"""CPU time is counted in steps of 0.01 s: a busy share over less than this would be
noise, so the last one is kept.
"""


class CPUProvider(Provider):
    """The cores this process may run on and the memory it may use, as one device.

    Args:
        clock: seconds that never run backwards, for busy shares.
    """

    name = "cpu"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: dict[str, _BusyShare] = {}
        self._metered: dict[
            str, _BusyShare
        ] = {}  # the books look less often, and must not be cut short by others
        self._cores: tuple[int, ...] = ()

    def discover(self, host: str) -> tuple[Device, ...]:
        """One device, ``CPU-<host>``."""
        # Asked once: a process that binds itself to a slice of its own would else see
        # the host shrink to that slice.
        self._cores = self._cores or _usable_cores(host)
        return (
            Device(
                id=f"CPU-{host}",
                host=host,
                kind=DeviceKind.CPU,
                index=0,
                name=_model_name(),
                memory_bytes=_memory_bytes(),
                cores=self._cores,
            ),
        )

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """The lease's cores, and as many threads in each library that starts its
        own.
        """
        slices = _cpu_slices(lease)
        cores = tuple(sorted({core for piece in slices for core in piece.cores}))
        there = {
            core
            for piece in slices
            if piece.device_id in devices
            for core in devices[piece.device_id].cores
        }
        if not cores or not there.issuperset(cores):
            raise PrepareFailed(
                "some of the lease's CPU cores may no longer be used", lease_id=lease.id
            )
        threads = str(len(cores))
        # Elsewhere no process can be bound.
        bound = cores if sys.platform == "linux" else None
        return Preparation(
            environment=dict.fromkeys(THREAD_VARIABLES, threads),
            cores=cores,
            memory_limit_bytes=sum(piece.memory_bytes for piece in slices),
            enforced_by=Enforcement.CPU,
            expects=Expectation(cores=bound, threads=threads),
        )

    def usage(
        self, leases: Mapping[str, Lease], pids: Mapping[str, frozenset[int]]
    ) -> Mapping[str, Usage]:
        """Private memory of each lease's processes, and how busy they kept its cores
        since the last call, or None.
        """
        with self._lock:
            for lease_id in [
                i for i in self._shares if i not in leases and not i.startswith("CPU-")
            ]:
                del self._shares[lease_id]
            held = {i: _cpu_slices(lease) for i, lease in leases.items()}
            return {
                i: self._use_of(i, slices, pids.get(i, frozenset()), self._shares)
                for i, slices in held.items()
                if slices
            }

    def device_usage(self, devices: Mapping[str, Device]) -> Mapping[str, Usage]:
        """Memory used on the host (in a container: by it) and how busy the device's
        cores were since the last call.
        """
        with self._lock:
            return {
                i: self._use_of_device(d)
                for i, d in devices.items()
                if d.kind is DeviceKind.CPU
            }

    def loads(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
    ) -> Mapping[str, ProcessLoad]:
        """How busy each lease kept its cores, and its memory; a CPU has no counter of
        energy that all may read.
        """
        with self._lock:
            self._metered = {
                i: share for i, share in self._metered.items() if i in leases
            }
            held = {i: _cpu_slices(lease) for i, lease in leases.items() if i in pids}
            used = {
                i: self._use_of(i, slices, pids[i], self._metered)
                for i, slices in held.items()
                if slices
            }
        return {
            i: _load(device, leases, used)
            for i, device in devices.items()
            if device.kind is DeviceKind.CPU
        }

    def _use_of(
        self,
        lease_id: str,
        slices: Iterable[Slice],
        pids: Iterable[int],
        shares: dict[str, _BusyShare],
    ) -> Usage:
        cores = len({core for piece in slices for core in piece.cores})
        seen = [process for process in map(_observe, pids) if process is not None]
        share = shares.setdefault(lease_id, _BusyShare())
        return Usage(
            memory_bytes=sum(process.memory_bytes for process in seen),
            utilization=share.update(
                {process.key: process.cpu_seconds for process in seen},
                self._clock(),
                cores,
            ),
        )

    def _use_of_device(self, device: Device) -> Usage:
        share = self._shares.setdefault(device.id, _BusyShare())
        busy = share.update(
            _busy_seconds(device.cores), self._clock(), len(device.cores)
        )
        return Usage(memory_bytes=_memory_used(device), utilization=busy)


class _BusyShare:
    """CPU time of some processes or cores, turned into a busy share between two
    looks.
    """

    def __init__(self) -> None:
        self._seconds: Mapping[object, float] = {}
        self._at: float | None = None
        self._last: float | None = None

    def update(
        self, seconds: Mapping[object, float], now: float, cores: int
    ) -> float | None:
        """The share since the last look, 0 to 1. What was not seen then counts from now
        on.
        """
        if self._at is not None and now - self._at < SHORTEST_SECONDS:
            return self._last
        if self._at is not None:
            spent = sum(
                max(0.0, total - self._seconds.get(key, total))
                for key, total in seconds.items()
            )
            self._last = min(1.0, spent / (now - self._at) / max(cores, 1))
        self._seconds = seconds
        self._at = now
        return self._last


@dataclass(frozen=True, kw_only=True)
class _Process:
    key: object  # pid and start time: a recycled pid is another process
    cpu_seconds: float
    memory_bytes: int


def _observe(pid: int) -> _Process | None:
    """What a process uses; None when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return _Process(
                key=(pid, process.create_time()),
                cpu_seconds=times.user + times.system,
                memory_bytes=_private_bytes(process.memory_info()),
            )
    except psutil.Error:
        return None


def _private_bytes(memory: Any) -> int:
    """Resident memory that is the process's own, so that a sum over processes counts
    nothing twice.

    Dividing shared pages fairly (PSS) would be truer, but the kernel walks all the
    process's pages for it and holds up
    its page faults meanwhile: 5 ms for a process with torch loaded, 19 ms with a GB
        more, each second. This takes 0.04.
    """
    return int(memory.rss - getattr(memory, "shared", 0))


def _usable_cores(host: str) -> tuple[int, ...]:
    """The cores this process may run on; where a container's CPU time is worth fewer,
    as many of them.

    Which ones depends on the host's name, so that containers that share a machine do
    not all crowd its first cores.
    """
    allowed = (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )
    limit = cgroup.cpu_limit()
    if limit is None or limit >= len(allowed):
        return tuple(allowed)
    start = zlib.crc32(host.encode()) % len(allowed)
    return tuple(sorted((allowed[start:] + allowed[:start])[: math.ceil(limit)]))


def _memory_bytes() -> int:
    import psutil

    total = int(psutil.virtual_memory().total)
    return min(total, cgroup.memory_limit() or total)


def _memory_used(device: Device) -> int:
    import psutil

    memory = psutil.virtual_memory()
    limited = cgroup.memory_used() if device.memory_bytes < memory.total else None
    return int(memory.total - memory.available) if limited is None else limited


def _busy_seconds(cores: Iterable[int]) -> dict[object, float]:
    import psutil

    times = psutil.cpu_times(percpu=True)
    return {
        core: sum(times[core])
        - times[core].idle
        - getattr(times[core], "iowait", 0.0)
        - getattr(times[core], "guest", 0.0)
        for core in cores
        if core < len(times)
    }


def _model_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = (
                line.partition(":")[2].strip()
                for line in file
                if line.startswith("model name")
            )
            return next(names, "") or platform.processor() or "CPU"
    except OSError:
        return platform.processor() or "CPU"


def _cpu_slices(lease: Lease) -> tuple[Slice, ...]:
    return tuple(piece for piece in lease.slices if piece.kind is SliceKind.CPU)


def _load(
    device: Device, leases: Mapping[str, Lease], used: Mapping[str, Usage]
) -> ProcessLoad:
    shares = {
        i: float(sum(p.fraction for p in lease.slices if p.device_id == device.id))
        for i, lease in leases.items()
    }
    busy = {
        i: use.utilization * shares[i]
        for i, use in used.items()
        if use.utilization is not None and shares[i]
    }
    memory = {
        i: use.memory_bytes
        for i, use in used.items()
        if use.memory_bytes is not None and shares[i]
    }
    return ProcessLoad(busy=busy, others=0.0, memory=memory)
