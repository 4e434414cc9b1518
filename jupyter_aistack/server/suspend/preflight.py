"""Whether the state of a kernel may be moved: what stands against it.

What the driver cannot checkpoint must be refused beforehand: a process on which it was
tried is not kept in a good state (NVIDIA/cuda-checkpoint README, "Functionality").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.providers.nvidia.checkpoint.inspection import Process

NOT_PROFILED = (
    "and the driver cannot suspend what is profiled (NVIDIA/cuda-checkpoint#15)"
)
UNASKED = (
    ("managed", "managed memory"),
    ("nccl", "NCCL"),
    ("cupti", "a profiler"),
)
"""What libraries may mean in a process that no agent speaks for."""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What is known of a kernel before its state is moved.

    Attributes:
        processes: its processes.
        root_pid: the process its agent speaks for.
        report: what the agent says (see ``notebook.report``); None where none answers.
        elsewhere: names of devices it holds memory on that are not its lease's.
        is_mig: a slice of it is a MIG instance.
        is_simulated: nothing real stands behind its devices.
        tier: how states are moved on this host, and why not better.
        why_tier: why it is not the driver's checkpoint.
    """

    processes: tuple[Process, ...] = ()
    root_pid: int | None = None
    report: Mapping[str, Any] | None = None
    elsewhere: tuple[str, ...] = ()
    is_mig: bool = False
    is_simulated: bool = False
    tier: SuspendMethod = SuspendMethod.CHECKPOINT
    why_tier: str = ""

    @property
    def contexts(self) -> tuple[int, ...]:
        """Its processes with a CUDA context: all of them move, or none."""
        return tuple(
            sorted(process.pid for process in self.processes if process.has_context)
        )

    @property
    def own_pool_bytes(self) -> int | None:
        """What the pools of its frameworks hold, where its agent speaks for all that is
        on the device.
        """
        if self.report is None or self.contexts != (self.root_pid,):
            return None
        size = self.report.get("pool_bytes")
        return None if size is None else int(size)


def why_not(facts: PreflightReport) -> str:
    """Why its state must stay where it is, in one sentence; empty when it may be
    moved.
    """
    if facts.is_mig:
        return "it runs on a MIG instance, which the driver cannot suspend (NVIDIA/cuda-checkpoint#42)"
    if facts.is_simulated:
        return ""
    if facts.tier is SuspendMethod.OFF:
        return f"nothing is suspended on this host: {facts.why_tier}"
    why = _against_processes(facts)
    if why or not facts.contexts:
        return why
    return _against_contents(facts)


def _against_processes(facts: PreflightReport) -> str:
    for process in facts.processes:
        if not process.is_own:
            return f"its process {process.pid} belongs to another user, whom this server may not suspend"
        if process.is_mps_client:
            return "it runs under MPS, which the driver cannot suspend"
        if process.has_context and process.uses is None:
            return f"what its process {process.pid} uses cannot be read"
    if facts.elsewhere:
        return f"it holds memory on {', '.join(facts.elsewhere)}, which is not of its lease"
    if not facts.contexts and _uses_cuda(facts):
        return "it uses CUDA, but the driver does not list its process: it may run in another process namespace"
    return ""


def _uses_cuda(facts: PreflightReport) -> bool:
    """Whether a process that the driver does not list has started CUDA, or has its
    library mapped and cannot be asked whether it has.
    """
    unlisted = [process for process in facts.processes if not process.is_listed]
    mapped = {
        process.pid for process in unlisted if process.uses and "cuda" in process.uses
    }
    is_root_unlisted = any(process.pid == facts.root_pid for process in unlisted)
    if facts.report is not None and facts.root_pid is not None:
        mapped.discard(facts.root_pid)
        has_started = is_root_unlisted and bool(facts.report.get("cuda"))
        return has_started or bool(mapped)
    return bool(mapped)


def _against_contents(facts: PreflightReport) -> str:
    report = facts.report
    if facts.tier is not SuspendMethod.CHECKPOINT:
        return _against_offload(facts)
    if report is not None:
        if report.get("managed"):
            return f"{report['managed']} has managed memory in it, which the driver cannot suspend"
        if report.get("nccl"):
            return "NCCL has a communicator in it: its peers would hang (NVIDIA/cuda-checkpoint#30)"
        if report.get("ipc"):
            return "it shares GPU memory with another process, which the driver cannot suspend"
    return _against_profilers(facts) or _against_libraries(facts)


def _against_profilers(facts: PreflightReport) -> str:
    """Profilers: the driver's checkpoint does not work beside them
    (NVIDIA/cuda-checkpoint#15).
    """
    report = facts.report or {}
    for process in facts.processes:
        uses = process.uses or ()
        if process.has_context and "profiler" in uses:
            return f"Nsight profiles its process {process.pid}, {NOT_PROFILED}"
        is_root = facts.report is not None and process.pid == facts.root_pid
        if is_root and "cupti" in uses and not report.get("links_cupti"):
            return f"its process {process.pid} uses CUPTI, {NOT_PROFILED}"
    profiler = report.get("profiler")
    return f"{profiler} runs in it, {NOT_PROFILED}" if profiler else ""


def _against_libraries(facts: PreflightReport) -> str:
    """Libraries in processes that no agent speaks for: what they do is not known, so
    it counts.
    """
    for process in facts.processes:
        has_agent = facts.report is not None and process.pid == facts.root_pid
        if has_agent or not process.has_context:
            continue
        for meaning, what in UNASKED:
            if process.uses and meaning in process.uses:
                return f"its process {process.pid} may use {what}, and no agent can be asked"
    return ""


def _against_offload(facts: PreflightReport) -> str:
    how = f"here only what aistack.offloadable() has registered can be moved ({facts.why_tier})"
    if facts.report is None:
        return f"{how}, and nothing in its kernel answers"
    if facts.report.get("graphs"):
        return "a CUDA graph in it holds addresses; delete it first"
    return "" if facts.report.get("registered_bytes") else f"{how}, and nothing is"
