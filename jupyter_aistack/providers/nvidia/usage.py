"""What is in use on NVIDIA GPUs at one moment, read from the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.base import Usage

from .nvml import NVML

SAMPLE_SECONDS = 2.5
"""How far back the driver's utilisation samples are averaged; it takes one every 0.2 to
1 second.
"""

_PROCESS_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)


class UsageReader:
    """One round of measuring: each list is read once from the driver, however many
    leases share a device.
    """

    def __init__(self, nvml: NVML, now: float, seconds: float = SAMPLE_SECONDS) -> None:
        self._nvml = nvml
        self._since = int((now - seconds) * 1e6)
        self._memory: dict[str, Mapping[int, int | None] | None] = {}
        self._busy: dict[str, Mapping[int, float] | None] = {}

    def of_processes(self, slices: Iterable[Slice], pids: frozenset[int]) -> Usage:
        pieces = list(slices)
        memory = [self._held(piece.uuid, pids) for piece in pieces]
        busy = [self._busy_share(piece, pids) for piece in pieces]
        known = [share for share in busy if share is not None]
        return Usage(
            memory_bytes=None
            if None in memory
            else sum(held for held in memory if held is not None),
            utilization=sum(known) / len(known) if len(known) == len(busy) else None,
        )

    def of_device(self, uuid: str) -> Usage:
        memory = self._ask(uuid, "nvmlDeviceGetMemoryInfo")
        rates = self._ask(uuid, "nvmlDeviceGetUtilizationRates")
        milliwatts = self._ask(uuid, "nvmlDeviceGetPowerUsage")
        millijoules = self._ask(uuid, "nvmlDeviceGetTotalEnergyConsumption")
        return Usage(
            memory_bytes=None if memory is None else memory.used,
            utilization=None if rates is None else rates.gpu / 100,
            power_watts=None if milliwatts is None else milliwatts / 1000,
            energy_joules=None if millijoules is None else millijoules / 1000,
        )

    def by_process(self, uuid: str) -> Mapping[int, int | None] | None:
        """Bytes each process holds on a GPU or MIG instance; None when no list of them
        can be read.
        """
        if uuid not in self._memory:
            self._memory[uuid] = _merge(
                [self._ask(uuid, function) for function in _PROCESS_LISTS]
            )
        return self._memory[uuid]

    def workers(self, uuid: str, since: float) -> frozenset[int] | None:
        """Processes of whose work the driver has a sample since then; None where it
        takes none (MIG).
        """
        samples = self._ask(
            uuid, "nvmlDeviceGetProcessUtilization", int(since * 1e6), not_found=()
        )
        return (
            None
            if samples is None
            else frozenset(s.pid for s in samples if 0 < s.smUtil <= 100)
        )

    def _held(self, uuid: str, pids: frozenset[int]) -> int | None:
        held = self.by_process(uuid)
        own = (
            None
            if held is None
            else [memory for pid, memory in held.items() if pid in pids]
        )
        return (
            None
            if own is None or None in own
            else sum(memory for memory in own if memory is not None)
        )

    def _busy_share(self, piece: Slice, pids: frozenset[int]) -> float | None:
        if piece.kind is SliceKind.MIG:
            return None  # the driver has no figure per process there
        busy = self.busy(piece.uuid)
        return (
            None
            if busy is None
            else min(1.0, sum(share for pid, share in busy.items() if pid in pids))
        )

    def busy(self, uuid: str) -> Mapping[int, float] | None:
        """Share of time in which each process had the GPU at work; None where the
        driver does not tell (MIG).
        """
        if uuid not in self._busy:
            samples = self._ask(
                uuid, "nvmlDeviceGetProcessUtilization", self._since, not_found=()
            )
            self._busy[uuid] = None if samples is None else _average(samples)
        return self._busy[uuid]

    def millijoules(self, uuid: str) -> int | None:
        """The GPU's energy counter, since its driver was loaded."""
        counter = self._ask(uuid, "nvmlDeviceGetTotalEnergyConsumption")
        return None if counter is None else int(counter)

    def _handle(self, uuid: str) -> Any:
        try:
            return self._nvml.query("nvmlDeviceGetHandleByUUID", uuid, default=None)
        except ProviderError:
            return None

    def _ask(self, uuid: str, function: str, *args: Any, **answers: Any) -> Any:
        """The driver's answer, or None: one GPU in trouble must not hide what the
        others do.
        """
        handle = self._handle(uuid)
        try:
            return (
                None
                if handle is None
                else self._nvml.query(function, handle, *args, default=None, **answers)
            )
        except ProviderError:
            return None


def read_processes(nvml: NVML, handle: Any) -> dict[int, int | None]:
    """Bytes held by process id on a GPU or MIG instance; None for a figure the driver
    keeps to itself.
    """
    return processes_if_known(nvml, handle) or {}


def processes_if_known(nvml: NVML, handle: Any) -> dict[int, int | None] | None:
    """The same, or None where no list can be read."""
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


def _average(samples: Iterable[Any]) -> dict[int, float]:
    """Mean busy share of each process; figures above 100 are leavings of processes that
    ended.
    """
    by_pid: dict[int, list[int]] = {}
    for sample in samples:
        if sample.smUtil <= 100:
            by_pid.setdefault(sample.pid, []).append(sample.smUtil)
    return {pid: sum(busy) / len(busy) / 100 for pid, busy in by_pid.items()}
