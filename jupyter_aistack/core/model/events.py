"""What has happened, in the past tense; the ledger keeps these in order and for
ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    REQUEST_QUEUED = "RequestQueued"
    REQUEST_REJECTED = "RequestRejected"
    REQUEST_CANCELLED = "RequestCancelled"
    LEASE_GRANTED = "LeaseGranted"
    LEASE_ACTIVATED = "LeaseActivated"
    LEASE_NOT_ENFORCED = "LeaseNotEnforced"
    LEASE_NEAR_MEMORY = "LeaseNearMemory"
    LEASE_OVER_MEMORY = "LeaseOverMemory"
    LEASE_FAULTED = "LeaseFaulted"
    LEASE_LIMITS_CHANGED = "LeaseLimitsChanged"
    LEASE_EXTENDED = "LeaseExtended"
    LEASE_NOTICED = "LeaseNoticed"
    LEASE_NOTICE_WITHDRAWN = "LeaseNoticeWithdrawn"
    LEASE_SUSPENDED = "LeaseSuspended"
    LEASE_RESUMED = "LeaseResumed"
    LEASE_STATE_LOST = "LeaseStateLost"
    LEASE_RELEASED = "LeaseReleased"
    LEASE_EXPIRED = "LeaseExpired"
    LEASE_PREEMPTED = "LeasePreempted"
    LEASE_FAILED = "LeaseFailed"
    LEASE_ABANDONED = "LeaseAbandoned"
    LEASE_RECLAIMED = "LeaseReclaimed"
    LEASE_LAPSED = "LeaseLapsed"
    RESERVATION_MADE = "ReservationMade"
    RESERVATION_CANCELLED = "ReservationCancelled"
    DEVICE_FAULTED = "DeviceFaulted"  # nothing is granted on it any more
    DEVICE_RECOVERED = "DeviceRecovered"  # it may be granted again
    DEVICE_DRAINED = "DeviceDrained"  # nothing new is granted on it, by hand
    DEVICE_UNDRAINED = "DeviceUndrained"  # that is over
    LEASE_DRAINED = "LeaseDrained"  # its holder is told of the former


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact.

    Attributes:
        kind: what happened.
        at: when, in seconds since the epoch.
        request_id, lease_id, device_id: to what; empty where it does not apply.
        detail: the reason, for people.
        sequence: its place in the ledger, 1 upwards; 0 where it was not read from there.
    """

    kind: EventKind
    at: float
    request_id: str = ""
    lease_id: str = ""
    detail: str = ""
    device_id: str = ""
    sequence: int = 0
