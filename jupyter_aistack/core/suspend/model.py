"""The input of the suspend rules: a host's memory, and the leases on its devices whose
state may be moved out while they are idle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    why_pinned,
)
from jupyter_aistack.core.model.policy import SuspendPolicy

ON_DEVICE = frozenset({StatePhase.RESIDENT, StatePhase.PARKING, StatePhase.RESTORING})
MOVING = frozenset({StatePhase.PARKING, StatePhase.RESTORING})


@dataclass(frozen=True, kw_only=True)
class SuspendCandidate:
    """A lease whose holder may be suspended, as the policy sees it.

    Attributes:
        lease_id: the lease.
        devices: its home; it is resident on all of them or on none.
        memory_bytes: its budget on each of them.
        state_bytes: what it really held there when it was suspended; the budget before
            that.
        phase: where its state is.
        is_busy: a cell of it runs, or its device works.
        active_at: when it was last in use or resumed, in seconds since the epoch.
        wanted_at: since when a cell of it waits for it to be resumed; None for not.
        pinned: why it must stay; empty when it need not.
        is_subject: whether it may be suspended at some time, whatever pins it now: the
            host keeps memory for it.
        must_go: its user wants it suspended, or it is being preempted: it is suspended
            as soon as it is idle.
        failures, failed_at: suspends that failed in a row, and when the last one did.
    """

    lease_id: str
    devices: tuple[str, ...]
    memory_bytes: int
    state_bytes: int | None = None
    phase: StatePhase = StatePhase.RESIDENT
    is_busy: bool = False
    active_at: float = 0.0
    wanted_at: float | None = None
    pinned: str = ""
    is_subject: bool = True
    must_go: bool = False
    failures: int = 0
    failed_at: float = 0.0

    @property
    def copied_bytes(self) -> int:
        """What its suspended state takes on each of its devices."""
        return self.memory_bytes if self.state_bytes is None else self.state_bytes

    @property
    def host_bytes(self) -> int:
        """What its suspended state takes of the host's memory."""
        return self.copied_bytes * len(self.devices)

    @property
    def is_on_device(self) -> bool:
        """Whether its memory counts on its devices, all or part of it being there."""
        return self.phase in ON_DEVICE

    @property
    def is_moving(self) -> bool:
        """Whether its state is being moved out or in."""
        return self.phase in MOVING


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """The memory of one device.

    Attributes:
        budget_bytes: what the leases on it may have of it together.
        free_bytes: what the driver says is free now.
        most_free_bytes: what would be free if none of them were there, which is less
            than all of it: the driver keeps some for itself. None for the whole budget.
    """

    budget_bytes: int
    free_bytes: int
    most_free_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """One host at one moment.

    Attributes:
        devices: the memory of its devices by id.
        candidates: all leases on them.
        host_bytes: most that suspended state may take of its memory, see
            :func:`host_capacity`.
        policy: when to suspend.
    """

    devices: Mapping[str, DeviceMemory]
    candidates: tuple[SuspendCandidate, ...]
    host_bytes: int
    policy: SuspendPolicy = field(default_factory=SuspendPolicy)

    @property
    def suspended_bytes(self) -> int:
        """Host memory that suspended state takes, that on its way included."""
        return sum(
            candidate.host_bytes
            for candidate in self.candidates
            if candidate.is_moving or candidate.phase is StatePhase.PARKED
        )


def host_capacity(available_bytes: int, *, suspended_bytes: int, share: float) -> int:
    """How much more may be moved to host memory: `share` of what would be available if
    nothing were suspended.
    """
    total = available_bytes + suspended_bytes
    return max(0, int(total * share) - suspended_bytes)


def restore_bytes(candidate: SuspendCandidate, policy: SuspendPolicy) -> int:
    """What had better be free on each of its devices before it is resumed."""
    with_margin = math.ceil(candidate.copied_bytes * (1 + policy.margin_share))
    return with_margin + (policy.context_bytes or 0)


def promised_bytes(
    candidate: SuspendCandidate, device: DeviceMemory, policy: SuspendPolicy
) -> int:
    """What of a device's budget it needs to be resumed: all of it at most, as it can be
    there alone.
    """
    wanted = max(candidate.memory_bytes, restore_bytes(candidate, policy))
    return min(wanted, device.budget_bytes)


def needed_bytes(
    candidate: SuspendCandidate, device: DeviceMemory, policy: SuspendPolicy
) -> int:
    """What must really be free on a device before it is resumed.

    Its state, and the margin as far as the device has that: what was there before fits
    once nothing else is.
    """
    most = device.most_free_bytes
    if most is None:
        most = device.budget_bytes
    return max(candidate.copied_bytes, min(restore_bytes(candidate, policy), most))


def retry_at(candidate: SuspendCandidate, policy: SuspendPolicy) -> float:
    """When a candidate that could not be locked may be tried again: the pause doubles
    with each failure.
    """
    if not candidate.failures:
        return -math.inf
    pause = policy.retry_seconds * 2.0 ** min(candidate.failures - 1, 60)
    return candidate.failed_at + min(pause, policy.longest_retry_seconds)


def candidate_of(
    lease_id: str, devices: tuple[str, ...], memory_bytes: int, state: DeviceState
) -> SuspendCandidate:
    """A lease as the rules of suspension see it.

    Args:
        devices: the devices it is on.
        memory_bytes: its budget on each of them.
        state: where its device state is.
    """
    return SuspendCandidate(
        lease_id=lease_id,
        devices=devices,
        memory_bytes=memory_bytes,
        state_bytes=state.state_bytes,
        phase=state.phase,
        is_busy=state.is_busy,
        active_at=state.active_at,
        wanted_at=state.wanted_at,
        pinned=why_pinned(state),
        must_go=state.asked is RequestedAction.SUSPEND,
        failures=state.failures,
        failed_at=state.failed_at,
    )
