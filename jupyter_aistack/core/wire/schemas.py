"""The JSON shapes of ``values.py`` as JSON Schema, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from jupyter_aistack.core.model.condition import ConditionKind, Severity
from jupyter_aistack.core.model.device import DeviceKind, Enforcement, SliceKind
from jupyter_aistack.core.model.device_state import (
    DisplayState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import LeaseState, NoticeKind, Outcome
from jupyter_aistack.core.model.request import HolderKind, RequestState
from jupyter_aistack.core.model.spec import MAX_COUNT
from jupyter_aistack.exceptions import AIStackError, InvalidRequest

JSON = dict[str, Any]

TEXT: JSON = {"type": "string"}
FLAG: JSON = {"type": "boolean"}
COUNT: JSON = {"type": "integer", "minimum": 0}
WHOLE: JSON = {"type": "integer"}
NUMBER: JSON = {"type": "number"}
SHARE: JSON = {
    "type": "string",
    "pattern": "^[0-9]+(/[0-9]+)?$",
    "examples": ["1/4", "1"],
}
SECONDS: JSON = {"type": ["number", "null"], "minimum": 1, "maximum": 366 * 86400}
PATIENCE: JSON = {**SECONDS, "minimum": 0}
MOMENT: JSON = {**NUMBER, "minimum": 0, "maximum": 10**11}
NULL: JSON = {"type": "null"}


def ref(name: str) -> JSON:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: JSON, optional: JSON | None = None) -> JSON:
    """An object with these fields and no others."""
    fields = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: JSON) -> JSON:
    return {"type": "array", "items": items}


def _one_of(kind: Any) -> JSON:
    return {
        "type": "string",
        "title": kind.__name__,
        "enum": [member.value for member in kind],
    }


def _default(schema: JSON, value: Any) -> JSON:
    """The schema of a field that a reader takes for `value` where an older server does
    not send it.
    """
    return {**schema, "default": value}


def _extensible(schema: JSON) -> JSON:
    """An enum to which newer servers add values; readers take any text."""
    return {**schema, "x-extensible": True}


def _or_null(schema: JSON) -> JSON:
    return {"anyOf": [schema, NULL]}


def _map(values: JSON) -> JSON:
    return {"type": "object", "additionalProperties": values}


_DEVICE = _object(
    {
        "id": TEXT,
        "host": TEXT,
        "kind": _one_of(DeviceKind),
        "index": COUNT,
        "name": TEXT,
        "memory_bytes": COUNT,
        "cores": _list(COUNT),
        "multiprocessors": COUNT,
        "mig_enabled": FLAG,
        "mig": _list(ref("MIGInstance")),
        "mig_offers": _default(_list(TEXT), []),
        "vendor": _default(TEXT, ""),
        "is_divisible": _default(FLAG, True),
        "foreign_memory_bytes": COUNT,
        "simulated": FLAG,
        "peers": _list(TEXT),
        "domain": TEXT,
        "problem": TEXT,
        "level": _or_null(_one_of(Enforcement)),
        "why_not": _default(_map(TEXT), {}),
        "advice": _default(TEXT, ""),
        "free_fraction": SHARE,
    }
)
_LEASE = _object(
    {
        "id": TEXT,
        "token": COUNT,
        "request_id": TEXT,
        "spec": TEXT,
        "holder": ref("Holder"),
        "slices": _list(ref("Slice")),
        "queue": TEXT,
        "state": _one_of(LeaseState),
        "granted_at": NUMBER,
        "expires_at": NUMBER,
        "ends_at": _or_null(NUMBER),
        "preemptible": FLAG,
        "enforced_by": _or_null(_one_of(Enforcement)),
        "enforcement": TEXT,
        "verified": _or_null(FLAG),
        "conditions": _list(ref("Condition")),
        "active_at": _or_null(NUMBER),
        "notice": _or_null(ref("Notice")),
        "residence": _or_null(ref("DeviceState")),
        "outcome": _or_null(_one_of(Outcome)),
        "ended_at": _or_null(NUMBER),
    }
)
_DEVICE_STATE = _object(
    {
        "phase": _one_of(StatePhase),
        "state_bytes": _or_null(COUNT),
        "is_busy": FLAG,
        "active_at": NUMBER,
        "wanted_at": _or_null(NUMBER),
        "pinned": TEXT,
        "is_kept": FLAG,
        "failures": COUNT,
        "failed_at": NUMBER,
        "asked": _one_of(RequestedAction),
        "tier": _one_of(SuspendMethod),
        "note": TEXT,
        "standing": _one_of(DisplayState),
        "why": TEXT,
    }
)
_REQUEST = _object(
    {
        "id": TEXT,
        "spec": TEXT,
        "holder": ref("Holder"),
        "queue": TEXT,
        "priority": WHOLE,
        "lease_seconds": _or_null(NUMBER),
        "patience_seconds": _or_null(NUMBER),
        "preemptible": FLAG,
        "submitted_at": NUMBER,
        "state": _one_of(RequestState),
        "reason": TEXT,
        "code": TEXT,
        "lease_id": TEXT,
        "position": _or_null(COUNT),
        "eta_at": _or_null(NUMBER),
    }
)
_IDLE_POLICY: JSON = {
    "title": "IdlePolicy",
    **_object(
        {"badge_seconds": NUMBER, "notice_seconds": NUMBER, "reclaim_seconds": NUMBER}
    ),
}
_SUSPEND_CAPABILITY: JSON = {
    "title": "SuspendCapability",
    **_object({"tier": _one_of(SuspendMethod), "why": _default(TEXT, "")}),
}
_QUEUE = _object(
    {
        "name": TEXT,
        "quota": SHARE,
        "limit": _or_null(SHARE),
        "weight": SHARE,
        "priority": WHOLE,
        "is_open": FLAG,
        "is_batch": FLAG,
        "members": _list(TEXT),
        "idle": _or_null(_IDLE_POLICY),
        "suspend": _default(FLAG, False),
        "held": SHARE,
    }
)
_RESERVATION = _object(
    {
        "id": TEXT,
        "name": TEXT,
        "queue": TEXT,
        "spec": TEXT,
        "count": COUNT,
        "starts_at": NUMBER,
        "ends_at": NUMBER,
        "is_weekly": FLAG,
        "created_by": TEXT,
        "next_starts_at": NUMBER,
        "next_ends_at": NUMBER,
        "is_running": FLAG,
    }
)
_RESERVATION_BODY = _object(
    {
        "name": {"type": "string", "minLength": 1},
        "spec": {
            "type": "string",
            "minLength": 1,
            "examples": ["1/8"],
            "description": "What each gets.",
        },
        "starts_at": MOMENT,
        "ends_at": MOMENT,
    },
    {
        "count": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
        "queue": {"type": "string", "minLength": 1},
        "weekly": FLAG,
    },
)
_HOLDER = _object(
    {
        "kind": _one_of(HolderKind),
        "id": TEXT,
        "user": TEXT,
        "host": TEXT,
        "pid": _or_null(COUNT),
        "root_pid": _or_null(COUNT),
        "label": TEXT,
        "parent": TEXT,
    }
)
_REQUEST_BODY = _object(
    {
        "spec": {
            "type": "string",
            "minLength": 1,
            "examples": ["1/4", "20GiB", "2", "cpu:2"],
        }
    },
    {
        "kernel_id": {
            "type": "string",
            "minLength": 1,
            "description": "A running kernel that will hold the lease.",
        },
        "queue": TEXT,
        "lease_seconds": SECONDS,
        "patience_seconds": PATIENCE,
        "preemptible": FLAG,
    },
)


_KNOWN = _or_null({**NUMBER, "minimum": 0})
_FIGURES: JSON = {
    "gpu_hours": NUMBER,
    "cpu_hours": NUMBER,
    "gpu_hours_used": _KNOWN,
    "gpu_hours_idle": _KNOWN,
    "gib_hours": _KNOWN,
    "peak_bytes": _or_null(COUNT),
    "energy_kwh": _KNOWN,
    "energy_coverage": _KNOWN,
    "activity_coverage": _KNOWN,
    "cost": _KNOWN,
    "co2e_g": _KNOWN,
    "is_simulated": FLAG,
}
_RATES = _object(
    {"carbon_g_per_kwh": _KNOWN, "price_per_kwh": _KNOWN, "price_per_gpu_hour": _KNOWN}
)
_CELL: JSON = {
    "title": "CellUsage",
    **_object(
        {
            "cell": TEXT,
            "seconds": NUMBER,
            "busy_seconds": NUMBER,
            "energy_wh": _KNOWN,
            "peak_bytes": _or_null(COUNT),
        }
    ),
}
_LEASE_USAGE: JSON = {
    "title": "LeaseUsage",
    **_object(
        {"gpu_seconds": NUMBER, "metered_seconds": NUMBER, "energy_joules": NUMBER}
    ),
}
_ADVICE = _object(
    {
        "label": TEXT,
        "verdict": {"type": "string", "enum": ["less", "more", "fits", "unknown"]},
        "asked": TEXT,
        "advised": TEXT,
        "text": TEXT,
        "peak_bytes": _or_null(COUNT),
        "activity": _KNOWN,
        "hours": NUMBER,
        "saved_gpu_hours": _KNOWN,
    }
)


def _codes() -> list[str]:
    """The error codes REST may answer with: our error classes, and those of the web
    server.
    """
    found, waiting = (
        {"Forbidden", "NotFound", "MethodNotAllowed", InvalidRequest.__name__},
        [AIStackError],
    )
    while waiting:
        cls = waiting.pop()
        found.add(cls.__name__)
        waiting.extend(cls.__subclasses__())
    return sorted(found)


SCHEMAS: JSON = {
    "Host": _object(
        {
            "host": TEXT,
            "simulated": FLAG,
            "problems": _list(TEXT),
            "suspend": _default(_SUSPEND_CAPABILITY, None),
            "devices": _list(ref("Device")),
            "queues": _list(ref("QueueSettings")),
            "reservations": _list(ref("Reservation")),
        }
    ),
    "Device": _DEVICE,
    "MIGInstance": _object(
        {
            "uuid": TEXT,
            "profile": TEXT,
            "memory_bytes": COUNT,
            "multiprocessors": COUNT,
            "gpu_slices": _default(COUNT, 0),
            "compute_slices": _default(COUNT, 0),
        }
    ),
    "QueueSettings": _QUEUE,
    "Notice": _object(
        {
            "kind": _one_of(NoticeKind),
            "at": NUMBER,
            "ends_at": NUMBER,
            "request_id": TEXT,
        }
    ),
    "Reservation": _RESERVATION,
    "Reservations": _object({"reservations": _list(ref("Reservation"))}),
    "ReservationBody": _RESERVATION_BODY,
    "Slice": _object(
        {
            "device_id": TEXT,
            "kind": _one_of(SliceKind),
            "fraction": SHARE,
            "memory_bytes": COUNT,
            "uuid": TEXT,
            "profile": TEXT,
            "cores": _list(COUNT),
        }
    ),
    "Holder": _HOLDER,
    "Lease": _LEASE,
    "Condition": _object(
        {
            "kind": _one_of(ConditionKind),
            "severity": _one_of(Severity),
            "message": TEXT,
            "since": NUMBER,
        }
    ),
    "DeviceState": _DEVICE_STATE,
    "Leases": _object({"leases": _list(ref("Lease"))}),
    "Request": _REQUEST,
    "Queue": _object({"queue": _list(ref("Request"))}),
    "RequestBody": _REQUEST_BODY,
    "Requested": _object(
        {
            "request": ref("Request"),
            "lease": _or_null(ref("Lease")),
            "advice": _default(_or_null(TEXT), ""),
        }
    ),
    "Granted": {
        "allOf": [
            ref("Requested"),
            {"type": "object", "properties": {"lease": ref("Lease")}},
        ]
    },
    "Queued": {
        "allOf": [ref("Requested"), {"type": "object", "properties": {"lease": NULL}}]
    },
    "Extension": _object({"seconds": {**NUMBER, "minimum": 1, "maximum": 366 * 86400}}),
    "Use": _object(
        {
            "memory_bytes": _or_null(COUNT),
            "utilization": _or_null({**NUMBER, "minimum": 0}),
            "power_watts": _or_null(NUMBER),
            "energy_joules": _or_null(NUMBER),
        }
    ),
    "Usage": _object(
        {"at": NUMBER, "devices": _map(ref("Use")), "leases": _map(ref("Use"))}
    ),
    "UsageFigures": _object(_FIGURES),
    "ReportLine": _object({"week": TEXT, "user": TEXT, **_FIGURES}),
    "Rates": _RATES,
    "Report": _object(
        {
            "since": NUMBER,
            "until": NUMBER,
            "lines": _list(ref("ReportLine")),
            "total": ref("UsageFigures"),
            "rates": ref("Rates"),
        }
    ),
    "UsageSummary": _object(
        {
            "label": TEXT,
            "total": ref("UsageFigures"),
            "cells": _list(_CELL),
            "leases": _map(_LEASE_USAGE),
            "weeks": _list(ref("ReportLine")),
            "rates": ref("Rates"),
        }
    ),
    "Advices": _object({"advice": _list(_ADVICE)}),
    "Event": _object(
        {
            "sequence": COUNT,
            "kind": _extensible(_one_of(EventKind)),
            "at": NUMBER,
            "request_id": TEXT,
            "lease_id": TEXT,
            "detail": TEXT,
        }
    ),
    "Events": _object({"events": _list(ref("Event"))}),
    "Snapshot": {
        "description": 'What the stream sends whenever something has changed, with `type` "snapshot".',
        "type": "object",
        "properties": {
            "host": ref("Host"),
            "leases": _list(ref("Lease")),
            "queue": _list(ref("Request")),
            "usage": ref("Usage"),
        },
        "required": ["host", "leases", "queue", "usage"],
    },
    "StreamError": {
        "description": "What the stream sends while it cannot look at the host.",
        **_object({"type": {"const": "error"}, "error": ref("Error")}),
    },
    "Preparation": {
        "description": "What the process of a holder is given.",
        **_object(
            {
                "environment": _map(TEXT),
                "cores": _list(COUNT),
                "memory_limit_bytes": COUNT,
                "enforced_by": TEXT,
                "expects": _map({}),
                "conditions": _list(ref("Condition")),
            }
        ),
    },
    "OpenAPI": {"type": "object", "required": ["openapi", "paths"]},
    "Error": _object(
        {
            "code": _extensible({"type": "string", "enum": _codes()}),
            "message": TEXT,
            "facts": {"type": "object"},
            "reason": {"type": ["string", "null"]},
        }
    ),
}
