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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.exceptions import PrepareFailed
from jupyter_aistack.system import cgroup
from jupyter_aistack.system.affinity import rebind
from jupyter_aistack.system.launcher import allowed_cores
from jupyter_aistack.system.memory import total_bytes

from .base import Provider

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SHORTEST_SECONDS = 0.2
"""CPU time is counted in steps of 0.01 s: a busy share over less than this would be
noise, so the last busy share is kept.
"""


class CPUProvider(Provider):
    """The cores this process may run on and the memory it may use, as one device.

    Args:
        clock: seconds that never run backwards, for busy shares.
    """

    name = "cpu"
    order = 90  # the last resort

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: dict[str, _BusyShare] = {}
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
                memory_bytes=total_bytes(),
                cores=self._cores,
            ),
        )

    @property
    def allowance(self) -> str:
        """Its cores, where the host has more."""
        is_all = len(self._cores) in (0, os.cpu_count())
        return "" if is_all else f"cores {','.join(map(str, self._cores))}"

    def device_files(
        self, lease: Lease, devices: Mapping[str, Device]
    ) -> tuple[str, ...]:
        """Cores have none."""
        return ()

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """The lease's cores, and as many threads in each library that starts its
        own.
        """
        slices = _effective_slices(lease)
        cores = tuple(sorted({core for slice_ in slices for core in slice_.cores}))
        there = {
            core
            for slice_ in slices
            if slice_.device_id in devices
            for core in devices[slice_.device_id].cores
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
            memory_limit_bytes=sum(slice_.memory_bytes for slice_ in slices),
            enforced_by=Enforcement.CPU,
            expects=_expected(lease, bound, threads, there),
        )

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        """Bind the lease's processes to its cores of now. Threads that a program has
        bound itself stay within them.
        """
        elastic = {slice_.device_id for slice_ in lease.elastic_slices}
        own = [each for each in _cpu_slices(lease) if each.device_id in elastic]
        if not own:
            return LimitEffect.NOW
        if sys.platform != "linux":
            return LimitEffect.NEXT_START
        guaranteed = {core for slice_ in own for core in slice_.cores}
        cores = {core for each in _effective_slices(lease) for core in each.cores}
        is_bound = rebind(pids, guaranteed, cores)
        return LimitEffect.NOW if is_bound else LimitEffect.UNKNOWN

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        """Memory used on the host (in a container: by it), private memory of each
        lease's processes, and how busy the cores were since the last call.

        A CPU has no counter of energy that all may read, and none of time in the past:
        busy shares are unknown where `since` is given.
        """
        with self._lock:
            known = self._shares if since is None else {}
            shares = {
                name: known.get(name) or _BusyShare() for name in (*leases, *devices)
            }
            if since is None:
                self._shares = shares
            return {
                device_id: self._sample_of(device, leases, pids, shares)
                for device_id, device in devices.items()
            }

    def _sample_of(
        self,
        device: Device,
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        shares: Mapping[str, _BusyShare],
    ) -> DeviceSample:
        used = {
            lease_id: self._use_of(
                _effective_slices(lease), pids[lease_id], shares[lease_id]
            )
            for lease_id, lease in leases.items()
            if lease_id in pids
        }
        return DeviceSample(
            memory_bytes=_memory_used(device),
            utilization=shares[device.id].update(
                _busy_seconds(device.cores), self._clock(), len(device.cores)
            ),
            leases=used,
            others=0.0,
        )

    def _use_of(
        self, slices: Iterable[Slice], pids: Iterable[int], share: _BusyShare
    ) -> Usage:
        cores = len({core for slice_ in slices for core in slice_.cores})
        try:
            seen = [_observe(pid) for pid in pids]
        except PermissionError:  # one that cannot be looked at has not done nothing
            return Usage()
        observed = [process for process in seen if process is not None]
        busy = share.update(
            {process.key: process.cpu_seconds for process in observed},
            self._clock(),
            cores,
        )
        return Usage(
            memory_bytes=sum(process.memory_bytes for process in observed),
            utilization=busy,
        )


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
    """What a process uses; None when it is gone.

    Raises:
        PermissionError: it may not be looked at.
    """
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
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from error
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

    Which cores depends on the host's name, so that containers that share a machine do
    not all crowd its first cores.
    """
    allowed = allowed_cores()
    limit = cgroup.cpu_limit()
    if limit is None or limit >= len(allowed):
        return allowed
    start = zlib.crc32(host.encode()) % len(allowed)
    return tuple(sorted((allowed[start:] + allowed[:start])[: math.ceil(limit)]))


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


def _expected(
    lease: Lease, bound: tuple[int, ...] | None, threads: str, there: Collection[int]
) -> Expectation:
    """What a process must find; with a ceiling, at most: its cores change with those who
    come and go.
    """
    elastic = lease.elastic_slices
    if not elastic or lease.up_to is None:
        return Expectation(cores=bound, threads=threads)
    own = {core for slice_ in elastic for core in slice_.cores}
    most = max(len(own), int(lease.up_to * len(there)))
    return Expectation(most_cores=most if bound else None, threads=threads)


def _effective_slices(lease: Lease) -> tuple[Slice, ...]:
    slices = lease.effective_slices
    return tuple(slice_ for slice_ in slices if slice_.kind is SliceKind.CPU)


def _cpu_slices(lease: Lease) -> tuple[Slice, ...]:
    return tuple(slice_ for slice_ in lease.slices if slice_.kind is SliceKind.CPU)
