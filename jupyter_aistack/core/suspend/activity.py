"""When a kernel that is seen at work gets its parked device state back, whoever runs
it, in whatever language; pure.

Calls into the driver wait while the state is away, so coming late costs time only. What
is over in a moment, or works
on the CPU, need not bring it back therefore: a completion, an inspector of variables, a
cell without the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jupyter_aistack.core.model.device_state import StatePhase

GRACE_SECONDS = 0.15
"""What is over sooner wanted nothing of the device; completions and inspections take
less.
"""
BURNING = 0.5
"""Share of one core from which a kernel works on the CPU, and does not wait for its
device: a thread that waits in the driver sleeps."""


@dataclass(frozen=True, kw_only=True)
class KernelWork:
    """One kernel, as seen from outside.

    Attributes:
        busy_at: since when something runs in it; None for nothing.
        looked_at, cpu_seconds: when its CPU time was last read, and what it was then.
        is_noted: it was noted as at work for what runs now, and its end must be noted
            too.
    """

    busy_at: float | None = None
    looked_at: float = 0.0
    cpu_seconds: float | None = None
    is_noted: bool = False


class ActivityVerdict(StrEnum):
    """What is to be noted of a kernel now."""

    NOTHING = ""
    BEGINS = "begins"  # something in it needs its device
    ENDS = "ends"


def turns_busy(work: KernelWork, now: float, cpu_seconds: float | None) -> KernelWork:
    """Something begins to run; what runs already goes on."""
    if work.busy_at is not None:
        return work
    return replace(work, busy_at=now, looked_at=now, cpu_seconds=cpu_seconds)


def turns_idle(work: KernelWork) -> tuple[KernelWork, ActivityVerdict]:
    """Nothing runs any more."""
    return (
        KernelWork(),
        ActivityVerdict.ENDS if work.is_noted else ActivityVerdict.NOTHING,
    )


def look(
    work: KernelWork,
    phase: StatePhase,
    *,
    has_agent: bool,
    cpu_seconds: float | None,
    now: float,
    is_wanted: bool = False,
) -> tuple[KernelWork, ActivityVerdict]:
    """What to note now; look again every `GRACE_SECONDS` while it is busy.

    Args:
        phase: where its state is.
        has_agent: the kernel itself says when a cell needs the device. It knows better
            while the state is there; when it is away, it may be wrong or deaf (a
            widget's callback, a thread), and is not waited for.
        cpu_seconds: CPU time it has wanted so far, whether it got it or stood in line
            for it; None where it cannot be read, which is no sign of work.
        is_wanted: it is on its way back already, or waits for room.
    """
    if (
        work.busy_at is None
        or work.is_noted
        or phase is StatePhase.LOST
        or now - work.looked_at < GRACE_SECONDS
    ):
        return work, ActivityVerdict.NOTHING
    seen = replace(work, looked_at=now, cpu_seconds=cpu_seconds)
    if phase is StatePhase.RESIDENT and has_agent:
        return seen, ActivityVerdict.NOTHING
    if phase is not StatePhase.RESIDENT and (
        is_wanted or _burns(work, cpu_seconds, now)
    ):
        return seen, ActivityVerdict.NOTHING
    return replace(seen, is_noted=True), ActivityVerdict.BEGINS


def _burns(work: KernelWork, cpu_seconds: float | None, now: float) -> bool:
    if cpu_seconds is None or work.cpu_seconds is None:
        return False
    return cpu_seconds - work.cpu_seconds >= BURNING * (now - work.looked_at)
