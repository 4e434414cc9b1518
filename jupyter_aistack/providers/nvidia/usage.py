"""What is in use on NVIDIA GPUs at one moment, read from the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jupyter_aistack.exceptions import ProviderError

from .nvml import MEMORY_V2, NVML

_PROCESS_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)

MOST_PERCENT = 100
NOT_AVAILABLE_32 = 0xFFFFFFFF
"""``NVML_VALUE_NOT_AVAILABLE`` in a figure of 32 bits."""
NOT_AVAILABLE_64 = 0xFFFFFFFFFFFFFFFF
"""The same in 64 bits."""


class UsageReader:
    """One round of reading: each handle is fetched once, as handles do not outlive a
    reset of the driver.

    Every figure is None where the driver does not tell: one GPU in trouble must not
    hide what the others do.

    Args:
        nvml: the connection to the driver.
        since: activity is averaged since then, in seconds since the epoch.
    """

    def __init__(self, nvml: NVML, since: float) -> None:
        self._nvml = nvml
        self._since = int(since * 1e6)
        self._handles: dict[str, Any] = {}

    def by_process(self, uuid: str) -> Mapping[int, int | None] | None:
        """Bytes each process holds on a GPU or MIG instance; None when no list of them
        can be read.
        """
        return _merge([self._ask(uuid, function) for function in _PROCESS_LISTS])

    def busy(self, uuid: str) -> Mapping[int, float] | None:
        """Share of time in which each process had the GPU at work; None where the
        driver does not tell (MIG).
        """
        samples = self._ask(
            uuid, "nvmlDeviceGetProcessUtilization", self._since, not_found=()
        )
        return None if samples is None else _average(samples, self._since)

    def memory_bytes(self, uuid: str) -> int | None:
        """Memory in use on the GPU, without what the driver reserves where it tells
        that.
        """
        memory = self._ask(uuid, "nvmlDeviceGetMemoryInfo", MEMORY_V2)
        if memory is None:
            memory = self._ask(uuid, "nvmlDeviceGetMemoryInfo")
        if memory is None or memory.used > memory.total:
            return None
        return int(memory.used)

    def utilization(self, uuid: str) -> float | None:
        """Share of time in which the GPU was at work."""
        rates = self._ask(uuid, "nvmlDeviceGetUtilizationRates")
        if rates is None or rates.gpu > MOST_PERCENT:
            return None
        return float(rates.gpu / 100)

    def watts(self, uuid: str) -> float | None:
        """Power the GPU draws."""
        milliwatts = self._ask(uuid, "nvmlDeviceGetPowerUsage")
        if milliwatts is None or milliwatts == NOT_AVAILABLE_32:
            return None
        return float(milliwatts / 1000)

    def millijoules(self, uuid: str) -> int | None:
        """The GPU's energy counter, since its driver was loaded."""
        counter = self._ask(uuid, "nvmlDeviceGetTotalEnergyConsumption")
        if counter is None or counter == NOT_AVAILABLE_64:
            return None
        return int(counter)

    def handle(self, uuid: str) -> Any:
        """The driver's handle of a GPU or MIG instance; None where it gives none."""
        if uuid not in self._handles:
            self._handles[uuid] = self._fetch_handle(uuid)
        return self._handles[uuid]

    def _fetch_handle(self, uuid: str) -> Any:
        try:
            return self._nvml.query("nvmlDeviceGetHandleByUUID", uuid, default=None)
        except ProviderError:
            return None

    def _ask(self, uuid: str, function: str, *args: Any, **answers: Any) -> Any:
        handle = self.handle(uuid)
        if handle is None:
            return None
        try:
            return self._nvml.query(function, handle, *args, default=None, **answers)
        except ProviderError:
            return None


def processes_if_known(nvml: NVML, handle: Any) -> dict[int, int | None] | None:
    """Bytes held by process id on a GPU or MIG instance, None for a figure the driver
    keeps to itself; None where no list can be read.
    """
    return _merge(
        [nvml.query(function, handle, default=None) for function in _PROCESS_LISTS]
    )


def _merge(lists: Iterable[Any]) -> dict[int, int | None] | None:
    """One figure for each process, or None when no list could be read.

    A process that computes and draws is on two lists with the same figure, so the
    largest counts, not the sum.
    """
    readable = [processes for processes in lists if processes is not None]
    held: dict[int, int | None] = {}
    for process in (process for processes in readable for process in processes):
        before = held.get(process.pid)
        now = process.usedGpuMemory
        held[process.pid] = now if before is None else max(before, now or 0)
    return held if readable else None


def _average(samples: Iterable[Any], since: int) -> dict[int, float]:
    """Mean busy share of each process since then (microseconds since the epoch).

    The driver hands out the last sample of a process however old it is
    (NVIDIA/go-nvml#51): what was seen before tells nothing of this time. Figures above
    100 are leavings of processes that ended.
    """
    by_pid: dict[int, list[int]] = {}
    for sample in samples:
        is_new = sample.timeStamp > since
        if is_new and sample.smUtil <= MOST_PERCENT:
            by_pid.setdefault(sample.pid, []).append(sample.smUtil)
    return {pid: sum(busy) / len(busy) / 100 for pid, busy in by_pid.items()}
