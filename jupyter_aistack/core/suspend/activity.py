"""When a kernel that is observed at work gets its suspended device state back, whatever
runs it, in whatever language; pure.

Calls into the driver wait while the state is away, so coming late costs time only. What
is over in a moment, or works on the CPU, need not have it resumed therefore: a
completion, an inspector of variables, a cell without the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jupyter_aistack.core.model.device_state import StatePhase

GRACE_SECONDS = 0.15
"""What is over sooner wanted nothing of the device; completions and inspections take
less.
"""
CPU_BOUND = 0.5
"""Share of a core from which a kernel works on the CPU, and does not wait for its
device: a thread that waits in the driver sleeps."""


@dataclass(frozen=True, kw_only=True)
class KernelWork:
    """One kernel, as observed from outside.

    Attributes:
        busy_at: since when something runs in it; None for nothing.
        inspected_at, cpu_seconds: when its CPU time was last read, and what it was
            then.
        is_recorded: it was recorded as at work for what runs now, and its end must be
            recorded too.
    """

    busy_at: float | None = None
    inspected_at: float = 0.0
    cpu_seconds: float | None = None
    is_recorded: bool = False


class ActivityVerdict(StrEnum):
    """What is to be recorded of a kernel now."""

    NOTHING = ""
    BEGINS = "begins"  # something in it needs its device
    ENDS = "ends"


def begin_work(work: KernelWork, now: float, cpu_seconds: float | None) -> KernelWork:
    """Something begins to run; what runs already goes on."""
    if work.busy_at is not None:
        return work
    return replace(work, busy_at=now, inspected_at=now, cpu_seconds=cpu_seconds)


def end_work(work: KernelWork) -> tuple[KernelWork, ActivityVerdict]:
    """Nothing runs any more."""
    verdict = ActivityVerdict.ENDS if work.is_recorded else ActivityVerdict.NOTHING
    return KernelWork(), verdict


def inspect(
    work: KernelWork,
    phase: StatePhase,
    *,
    has_agent: bool,
    cpu_seconds: float | None,
    now: float,
    is_wanted: bool = False,
) -> tuple[KernelWork, ActivityVerdict]:
    """What to record now; inspect again every `GRACE_SECONDS` while it is busy.

    Args:
        phase: where its state is.
        has_agent: the kernel itself says when a cell needs the device. It knows better
            while the state is there; when it is away, it may be wrong or deaf (a
            widget's callback, a thread), and is not waited for.
        cpu_seconds: CPU time it has wanted so far, whether it got it or stood in line
            for it; None where it cannot be read, which is no sign of work.
        is_wanted: it is being resumed already, or waits for that.
    """
    if not _is_due(work, now) or phase is StatePhase.LOST:
        return work, ActivityVerdict.NOTHING
    inspected = replace(work, inspected_at=now, cpu_seconds=cpu_seconds)
    if phase is StatePhase.RESIDENT:
        needs_device = not has_agent
    else:
        needs_device = not is_wanted and not _is_cpu_bound(work, cpu_seconds, now)
    if not needs_device:
        return inspected, ActivityVerdict.NOTHING
    return replace(inspected, is_recorded=True), ActivityVerdict.BEGINS


def _is_due(work: KernelWork, now: float) -> bool:
    """Whether something runs that is not recorded, and has run for long enough."""
    if work.busy_at is None or work.is_recorded:
        return False
    return now - work.inspected_at >= GRACE_SECONDS


def _is_cpu_bound(work: KernelWork, cpu_seconds: float | None, now: float) -> bool:
    if cpu_seconds is None or work.cpu_seconds is None:
        return False
    used = cpu_seconds - work.cpu_seconds
    return used >= CPU_BOUND * (now - work.inspected_at)
