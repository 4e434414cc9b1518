"""What the end of a lease means for the process that held it, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.lease import LeaseState, Outcome
from jupyter_aistack.system.runtimes import started_runtime

from .text import lease_remarks

_REASONS = {
    Outcome.PREEMPTED.value: "preempted: a higher-priority request needed the capacity",
    Outcome.RECLAIMED.value: "reclaimed: idle",
    Outcome.EXPIRED.value: "lease expired",
    Outcome.ABANDONED.value: Outcome.ABANDONED.label,
    Outcome.LAPSED.value: Outcome.LAPSED.label,
}
"""By outcome, those after which another lease may be asked for."""

_FAILURES = frozenset({ConditionKind.NOT_ENFORCED, ConditionKind.FAILED})
"""Conditions that say why a lease has failed."""


def ended_reason(lease: Mapping[str, Any]) -> str:
    """Why a lease has ended, in words."""
    outcome = lease["outcome"] or LeaseState.RELEASING.value
    if outcome == Outcome.FAILED.value:
        return lease_remarks(lease, _FAILURES) or outcome
    return _REASONS.get(outcome, outcome)


def ended_line(lease: Mapping[str, Any]) -> str:
    """Why a lease has ended, what that means for this process, and the way to another
    lease where that is of use.
    """
    reason = ended_reason(lease)
    line = f"the lease {lease['id']} has ended: {reason}; {_process_now(lease)}"
    if lease["outcome"] in _REASONS:
        line += f"; %gpu request {lease['spec']} asks again"
    return line


def _process_now(lease: Mapping[str, Any]) -> str:
    slices = lease["slices"]
    has_device = any(slice_["kind"] != SliceKind.CPU.value for slice_ in slices)
    started = started_runtime() if has_device else ""
    if started:
        return f"{started} still holds its device in this kernel: restart it"
    return "this kernel runs without a device now"
