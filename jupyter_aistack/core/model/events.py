"""What has happened, in the past tense; the ledger keeps these in order, and each with a
hash of the one before (:mod:`..audit.chain`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    REQUEST_QUEUED = "RequestQueued"
    REQUEST_REJECTED = "RequestRejected"
    REQUEST_CANCELLED = "RequestCancelled"
    REQUEST_BOUND = "RequestBound"  # to another name, or to other devices
    LEASE_GRANTED = "LeaseGranted"
    LEASE_ACTIVATED = "LeaseActivated"
    LEASE_NOT_ENFORCED = "LeaseNotEnforced"
    LEASE_NEAR_MEMORY = "LeaseNearMemory"
    LEASE_OVER_MEMORY = "LeaseOverMemory"
    LEASE_FAULTED = "LeaseFaulted"
    LEASE_LIMITS_CHANGED = "LeaseLimitsChanged"
    LEASE_EXTENDED = "LeaseExtended"
    LEASE_BOUND = "LeaseBound"  # to another process, or under another name
    LEASE_STATE_CHANGED = "LeaseStateChanged"  # pinned, or asked to leave or return
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
    STRAY_SEEN = "StraySeen"  # a process uses it without a lease
    STRAY_ENDED = "StrayEnded"  # that process was asked to end
    DEVICE_CUT = "DeviceCut"  # an admin has had MIG instances created or destroyed
    SETTINGS_CHANGED = "SettingsChanged"  # an admin's settings are in force
    HISTORY_ARCHIVED = "HistoryArchived"  # old records have left the ledger for a file


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact.

    Attributes:
        kind: what happened.
        at: when, in seconds since the epoch.
        request_id, lease_id, device_id: to what; empty where it does not apply.
        detail: the reason, for people.
        owner: the user whose request or lease that is; empty where it is nobody's.
        before, after: what has changed, as it was and as it is: JSON objects as text,
            as :mod:`..audit.changes` writes them.
        user: who did it, by login; empty where the broker did it by itself.
        uid, pid, command, host: the process that did it; None and empty where it is not
            known, as that of a browser.
        salt: of its hash.
        digest: its hash and that of the event before in one; empty where that was not
            kept yet.
        sequence: its place in the ledger, 1 upwards; 0 where it was not read from there.
    """

    kind: EventKind
    at: float
    request_id: str = ""
    lease_id: str = ""
    detail: str = ""
    device_id: str = ""
    owner: str = ""
    before: str = ""
    after: str = ""
    user: str = ""
    uid: int | None = None
    pid: int | None = None
    command: str = ""
    host: str = ""
    salt: str = field(default="", compare=False, repr=False)
    digest: str = field(default="", compare=False, repr=False)
    sequence: int = 0
