"""Leases whose device memory may be given back while they are idle: how they stand, and
what each takes where.
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
        active_at: when it was last in use or came back, in seconds since the epoch.
        wanted_at: since when a cell of it waits to have it back; None for not.
        pinned: why it must stay; empty when it need not.
        is_subject: whether it may be suspended at some time, whatever pins it now: the
            host keeps memory for it.
        must_go: its user wants it suspended, or it was asked back: it goes as soon as
            it is idle.
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
    def is_on_device(self) -> bool:
        return self.phase in (
            StatePhase.RESIDENT,
            StatePhase.PARKING,
            StatePhase.RESTORING,
        )

    @property
    def is_moving(self) -> bool:
        return self.phase in (StatePhase.PARKING, StatePhase.RESTORING)


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """The memory of one device.

    Attributes:
        budget_bytes: what its tenants may have of it together.
        free_bytes: what the driver says is free now.
        most_free_bytes: what would be free if none of its tenants were there, which is
            less than all of it: the driver keeps some for itself. None for the whole
            budget.
    """

    budget_bytes: int
    free_bytes: int
    most_free_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """One host at one moment.

    Attributes:
        cards: its devices by id.
        tenants: all leases on them.
        host_bytes: most that suspended state may take of its memory, see
            :func:`host_capacity`.
    """

    cards: Mapping[str, DeviceMemory]
    tenants: tuple[SuspendCandidate, ...]
    host_bytes: int
    policy: SuspendPolicy = field(default_factory=SuspendPolicy)

    @property
    def parked_bytes(self) -> int:
        """Host memory that suspended state takes, that on its way included."""
        there = (
            tenant
            for tenant in self.tenants
            if tenant.is_moving or tenant.phase is StatePhase.PARKED
        )
        return sum(tenant.copied_bytes * len(tenant.devices) for tenant in there)


def host_capacity(available_bytes: int, *, parked_bytes: int, share: float) -> int:
    """How much more may be moved to host memory: `share` of what would be available if
    nothing were parked.
    """
    return max(0, int((available_bytes + parked_bytes) * share) - parked_bytes)


def restore_bytes(tenant: SuspendCandidate, policy: SuspendPolicy) -> int:
    """What had better be free on each of its devices before `candidate_of` comes back."""
    return (
        math.ceil(tenant.copied_bytes * (1 + policy.margin_share))
        + policy.context_bytes
    )


def promised_bytes(
    tenant: SuspendCandidate, card: DeviceMemory, policy: SuspendPolicy
) -> int:
    """What of a device's budget `candidate_of` needs to come back: all of it at most, as it
    can be there alone.
    """
    return min(
        max(tenant.memory_bytes, restore_bytes(tenant, policy)), card.budget_bytes
    )


def needed_bytes(
    tenant: SuspendCandidate, card: DeviceMemory, policy: SuspendPolicy
) -> int:
    """What must really be free on a device before `candidate_of` comes back.

    Its state, and the margin as far as the device has that: what was there before fits
    once nobody else is.
    """
    most = card.budget_bytes if card.most_free_bytes is None else card.most_free_bytes
    return max(tenant.copied_bytes, min(restore_bytes(tenant, policy), most))


def retry_at(tenant: SuspendCandidate, policy: SuspendPolicy) -> float:
    """When a tenant that could not be locked may be tried again: twice as long after
    each failure.
    """
    if not tenant.failures:
        return -math.inf
    pause = policy.retry_seconds * 2.0 ** min(tenant.failures - 1, 60)
    return tenant.failed_at + min(pause, policy.longest_retry_seconds)


def candidate_of(
    lease_id: str, devices: tuple[str, ...], memory_bytes: int, residence: DeviceState
) -> SuspendCandidate:
    """The lease as the rules of :mod:`.suspend` see it; `memory_bytes` on each of its
    `devices`.
    """
    return SuspendCandidate(
        lease_id=lease_id,
        devices=devices,
        memory_bytes=memory_bytes,
        state_bytes=residence.state_bytes,
        phase=residence.phase,
        is_busy=residence.is_busy,
        active_at=residence.active_at,
        wanted_at=residence.wanted_at,
        pinned=why_pinned(residence),
        must_go=residence.asked is RequestedAction.SUSPEND,
        failures=residence.failures,
        failed_at=residence.failed_at,
    )
