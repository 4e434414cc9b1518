"""The JSON shapes of the interface as JSON Schema, for the OpenAPI document.

Those of records come from :mod:`.records`; what is written by hand here is put together
for one answer, or sent by users.
"""

from __future__ import annotations

from typing import Any

from jupyter_aistack.core.model.spec import MAX_COUNT
from jupyter_aistack.exceptions import AIStackError

from .fields import JSON
from .formats import COUNT, FLAG, NUMBER, SHARE, TEXT
from .records import (
    DESCRIBED,
    DEVICE,
    QUEUE,
    REPORTED_DEVICE,
    REQUEST,
    RESERVATION,
    STRAY,
)

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
_REASON: JSON = {
    "type": "string",
    "maxLength": 512,
    "description": "Why, for those who wait and those who hold a part of it.",
    "examples": ["a fan is replaced"],
}
_DRAIN_BODY = _object(
    {},
    {
        "until": {
            "anyOf": [MOMENT, {"type": "null"}],
            "description": "When it ends by itself.",
        },
        "seconds": {**SECONDS, "description": "The same, from now on."},
        "reason": _REASON,
    },
)
ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What an id of a lease, a request or a reservation looks like. None begins with a dot:
clients and proxies take such parts out of a path, which then names something else.
"""
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
        "up_to": {
            **TEXT,
            "description": "The share of each device that the lease may use while nobody"
            " else needs it; empty for what is granted.",
            "examples": ["1/1"],
        },
        "idempotency_key": {
            "type": "string",
            "maxLength": 512,
            "description": "Your own name for the request: asked again under the same, it is the same request.",
        },
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
    "energy_estimated_kwh": _KNOWN,
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
            "energy_estimated_wh": _KNOWN,
            "peak_bytes": _or_null(COUNT),
        }
    ),
}
_LEASE_USAGE: JSON = {
    "title": "LeaseUsage",
    **_object(
        {
            "gpu_seconds": NUMBER,
            "metered_seconds": NUMBER,
            "energy_joules": NUMBER,
            "energy_estimated_joules": NUMBER,
        }
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
    codes = {"Forbidden", "NotFound", "MethodNotAllowed"}
    classes: list[type[AIStackError]] = [AIStackError]
    while classes:
        cls = classes.pop()
        codes.add(cls.__name__)
        classes.extend(cls.__subclasses__())
    return sorted(codes)


_ADDED: dict[str, JSON] = {
    DEVICE.name: {"free_fraction": SHARE},
    REPORTED_DEVICE.name: {"free_fraction": _or_null(SHARE)},
    QUEUE.name: {"held": SHARE},
    REQUEST.name: {"position": _or_null(COUNT), "eta_at": _or_null(NUMBER)},
    RESERVATION.name: {
        "next_starts_at": NUMBER,
        "next_ends_at": NUMBER,
        "is_running": FLAG,
    },
    STRAY.name: {"is_own": FLAG},
}
"""What answers add to a record (see :mod:`.values`)."""
_RECORDS: JSON = {
    record.name: record.schema(_ADDED.get(record.name)) for record in DESCRIBED
}
_LISTS: JSON = {
    "Leases": _object({"leases": _list(ref("Lease"))}),
    "Queue": _object({"queue": _list(ref("Request"))}),
    "Events": _object({"events": _list(ref("Event"))}),
    "Reservations": _object({"reservations": _list(ref("Reservation"))}),
    "Advices": _object({"advice": _list(_ADVICE)}),
}
_BODIES: JSON = {
    "RequestBody": _REQUEST_BODY,
    "ReservationBody": _RESERVATION_BODY,
    "DrainBody": _DRAIN_BODY,
    "QuarantineBody": _object({}, {"reason": _REASON}),
    "Extension": _object({"seconds": {**NUMBER, "minimum": 1, "maximum": 366 * 86400}}),
}
_ANSWERS: JSON = {
    "Host": _object(
        {
            "host": TEXT,
            "simulated": FLAG,
            "problems": _list(TEXT),
            "suspend": _default(ref("SuspendCapability"), None),
            "roles": _default(_list(TEXT), []),
            "manages": _default(_list(TEXT), []),
            "devices": _list(ref("Device")),
            "queues": _list(ref("QueueSettings")),
            "reservations": _list(ref("Reservation")),
            "strays": _default(_list(ref("Stray")), []),
            "other_hosts": _default(COUNT, 0),
        }
    ),
    "HostOverview": _object(
        {
            "id": TEXT,
            "name": TEXT,
            "is_here": FLAG,
            "is_heard": FLAG,
            "seen_at": _or_null(NUMBER),
            "devices": _list(ref("ReportedDevice")),
            "leases": _list(ref("Lease")),
            "queue": _list(ref("Request")),
        }
    ),
    "Hosts": _object({"at": NUMBER, "hosts": _list(ref("HostOverview"))}),
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
    "Usage": _object(
        {"at": NUMBER, "devices": _map(ref("Use")), "leases": _map(ref("Use"))}
    ),
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
}
_ACCOUNTING: JSON = {
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
}

SCHEMAS: JSON = {
    **_RECORDS,
    **_LISTS,
    **_BODIES,
    **_ANSWERS,
    **_ACCOUNTING,
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
"""All schemas of the document, by name."""
