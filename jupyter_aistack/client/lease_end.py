"""What the end of a lease means for the process that used it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.model.condition import ConditionKind, conditions_text
from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.lease import LeaseState, Outcome
from jupyter_aistack.core.wire.records import conditions_from_list

from .runtime import attach as attaching

_INVOLUNTARY = {
    Outcome.PREEMPTED.value: "it was preempted by a request of higher priority",
    Outcome.RECLAIMED.value: "it was reclaimed because it was idle",
    Outcome.EXPIRED.value: "it has expired",
}
"""Ends after which the user may want another lease."""
_FAILURES = frozenset({ConditionKind.NOT_ENFORCED, ConditionKind.FAILED})


def ended_line(lease: Mapping[str, Any]) -> str:
    """What a lease's end means for this process, and the way to another lease where
    the holder did not ask for the end.
    """
    outcome = lease["outcome"] or LeaseState.RELEASING.value
    why = _failure(lease) if outcome == Outcome.FAILED.value else ""
    reason = why or _INVOLUNTARY.get(outcome, outcome)
    line = f"the lease {lease['id']} has ended: {reason}; {_consequence(lease)}"
    if outcome not in _INVOLUNTARY:
        return line
    return f"{line}; %gpu request {lease['spec']} asks again"


def _consequence(lease: Mapping[str, Any]) -> str:
    cpu = SliceKind.CPU.value
    has_device = any(slice_["kind"] != cpu for slice_ in lease["slices"])
    if has_device and attaching.cuda_started():
        return "CUDA still holds its device in this kernel: restart it"
    return "this kernel runs without a device now"


def _failure(lease: Mapping[str, Any]) -> str:
    """Why a lease ended as failed."""
    conditions = conditions_from_list(lease["conditions"])
    return conditions_text(each for each in conditions if each.kind in _FAILURES)
