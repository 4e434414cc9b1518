"""What is on the wire: each record of the core, and where it differs from its
dataclass.

This is the one table of exceptions. A field that is added to a dataclass is on the
wire, in the OpenAPI document and in the types of the page without further registration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jupyter_aistack.core.model.device import Device, MIGInstance, Slice
from jupyter_aistack.core.model.device_health import (
    HealthCode,
    HealthCondition,
    HealthConditions,
)
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.host import ReportedDevice
from jupyter_aistack.core.model.lease import Lease, Notice
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.policy import IdlePolicy, Queue
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.stray import Exemption, Stray
from jupyter_aistack.core.suspend.capability import SuspendCapability

from . import preparations  # noqa: F401 - registers conditions, which leases have
from .fields import Converter, described
from .formats import NUMBER, TEXT, WHOLE, WIRE


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(pairs)


def _pairs(by_name: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(by_name.items())


def _expected(hint: Any, default: Any) -> Converter:
    """A field that older servers do not send; readers take it for `default` then."""
    return described(WIRE.of(hint), default=default)


def _share_of_time(number: Converter) -> Converter:
    least = {**NUMBER, "minimum": 0}
    return described(number, anyOf=[least, {"type": "null"}])


_RANK = Converter(schema=WHOLE)
_NAMED_TEXTS = Converter(
    write=_by_name,
    read=_pairs,
    schema={"type": "object", "additionalProperties": TEXT, "default": {}},
)

HOLDER = WIRE.record(
    Holder,
    # What only those need who look for its process.
    hidden=["pid_started_at", "host_name", "boot_id", "pid_namespace", "allowance"],
    sources={"host": "shown_host"},
)
SLICE_LIMIT = WIRE.record(
    SliceLimit,
    # What only those need who act on memory above it.
    hidden=["lowered_at", "lowered_from_bytes"],
)
SLICE = WIRE.record(Slice, hidden=["gpu_slices", "compute_slices"])
NOTICE = WIRE.record(Notice)
DEVICE_STATE = WIRE.record(
    DeviceState,
    # What only the ledger and the worker that moves the state need.
    hidden=["is_checked", "is_restored", "away_at", "away_seconds"],
    properties={"standing": "note", "why": "standing"},
)
LEASE = WIRE.record(Lease, properties={"enforcement": "enforced_by"})
REQUEST = WIRE.record(
    Request,
    # The asker's own name for it is nobody else's business.
    hidden=["idempotency_key"],
    formats={"priority": _RANK},
)
MIG_INSTANCE = WIRE.record(
    MIGInstance,
    formats={"gpu_slices": _expected(int, 0), "compute_slices": _expected(int, 0)},
)
HEALTH_CONDITION = WIRE.record(
    HealthCondition,
    hidden=["evidence"],
    formats={"code": described(WIRE.of(HealthCode), **{"x-extensible": True})},
)
DRAIN = WIRE.record(Drain, hidden=["device_id", "device_name", "host"])
DEVICE = WIRE.record(
    Device,
    # What is in use is reported by the usage; of its health, by `conditions`; what is
    # too little, by the refusal.
    hidden=[
        "processes",
        "strays",
        "own_memory_bytes",
        "used_bytes",
        "free_bytes",
        "least_share_bytes",
        "context_bytes",
        "health",
    ],
    properties={"conditions": "advice"},
    formats={
        "mig_offers": _expected(tuple[str, ...], []),
        "vendor": _expected(str, ""),
        "is_divisible": _expected(bool, True),
        "why_not": _NAMED_TEXTS,
        "advice": _expected(str, ""),
        "conditions": _expected(HealthConditions, []),
        "drain": _expected(Drain | None, None),
    },
)
STRAY = WIRE.record(
    Stray,
    # For those who may not see the whole command.
    hidden=["program"],
    formats={"exemption": described(WIRE.of(Exemption), **{"x-extensible": True})},
)
REPORTED_DEVICE = WIRE.record(ReportedDevice)
IDLE_POLICY = WIRE.record(IdlePolicy)
QUEUE = WIRE.record(
    Queue,
    name="QueueSettings",
    formats={"priority": _RANK, "suspend": _expected(bool, False)},
)
RESERVATION = WIRE.record(Reservation, hidden=["host"])
SUSPEND_CAPABILITY = WIRE.record(
    SuspendCapability, hidden=["is_being_tested"], formats={"why": _expected(str, "")}
)
USE = WIRE.record(
    Usage,
    name="Use",
    # A share of the time: the driver may tell a little more than 1.
    formats={"utilization": _share_of_time(WIRE.of(float | None))},
)
EVENT = WIRE.record(
    Event,
    # What only those see who may read the audit trail.
    hidden=[
        *("owner", "before", "after", "user", "uid", "pid"),
        *("command", "host", "salt", "digest"),
    ],
    formats={
        "kind": described(WIRE.of(EventKind), **{"x-extensible": True}),
        "device_id": _expected(str, ""),
    },
)

DESCRIBED = tuple(record for record in WIRE.records if record.is_described)
"""The records that the OpenAPI document has a schema of."""
