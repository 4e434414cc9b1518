"""What is on the wire: each record of the core, and where it differs from its
dataclass.

This is the one table of exceptions. A field that is added to a dataclass is on the
wire, in the OpenAPI document and in the types of the page without another word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
)
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.condition import Condition, Conditions
from jupyter_aistack.core.model.device import Device, MIGInstance, Slice
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, Notice
from jupyter_aistack.core.model.policy import IdlePolicy, Queue
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.suspend.capability import SuspendCapability

from .fields import JSON, Converter, Converters, described

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

_WIRE = Converters(
    {
        str: Converter(schema=TEXT),
        bool: Converter(schema=FLAG),
        int: Converter(schema=COUNT),
        float: Converter(schema=NUMBER),
        Fraction: Converter(write=str, read=Fraction, schema=SHARE),
        Spec: Converter(write=str, read=parse_spec, schema=TEXT),
    }
)


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(pairs)


def _pairs(by_name: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(by_name.items())


def _expected(hint: Any, default: Any) -> Converter:
    """A field that older servers do not send; readers take it for `default` then."""
    return described(_WIRE.of(hint), default=default)


def _share_of_time(number: Converter) -> Converter:
    least = {**NUMBER, "minimum": 0}
    return described(number, anyOf=[least, {"type": "null"}])


_RANK = Converter(schema=WHOLE)
_NAMED_TEXTS = Converter(
    write=_by_name,
    read=_pairs,
    schema={"type": "object", "additionalProperties": TEXT, "default": {}},
)

CONDITION = _WIRE.record(Condition)
HOLDER = _WIRE.record(Holder, hidden=["pid_started_at"])
SLICE = _WIRE.record(Slice, hidden=["gpu_slices", "compute_slices"])
NOTICE = _WIRE.record(Notice)
DEVICE_STATE = _WIRE.record(
    DeviceState,
    # What only the ledger and the worker that moves the state need.
    hidden=["is_restored", "away_at", "away_seconds"],
    properties={"standing": "note", "why": "standing"},
)
LEASE = _WIRE.record(Lease, properties={"enforcement": "enforced_by"})
REQUEST = _WIRE.record(Request, formats={"priority": _RANK})
MIG_INSTANCE = _WIRE.record(
    MIGInstance,
    formats={"gpu_slices": _expected(int, 0), "compute_slices": _expected(int, 0)},
)
DEVICE = _WIRE.record(
    Device,
    # What is in use is told by the usage.
    hidden=["processes", "free_bytes"],
    formats={
        "mig_offers": _expected(tuple[str, ...], []),
        "vendor": _expected(str, ""),
        "is_divisible": _expected(bool, True),
        "why_not": _NAMED_TEXTS,
        "advice": _expected(str, ""),
    },
)
IDLE_POLICY = _WIRE.record(IdlePolicy)
QUEUE = _WIRE.record(
    Queue,
    name="QueueSettings",
    formats={"priority": _RANK, "suspend": _expected(bool, False)},
)
RESERVATION = _WIRE.record(Reservation, hidden=["host"])
SUSPEND_CAPABILITY = _WIRE.record(
    SuspendCapability, hidden=["is_being_tested"], formats={"why": _expected(str, "")}
)
USE = _WIRE.record(
    Usage,
    name="Use",
    # A share of the time: the driver may tell a little more than 1.
    formats={"utilization": _share_of_time(_WIRE.of(float | None))},
)
EVENT = _WIRE.record(
    Event, formats={"kind": described(_WIRE.of(EventKind), **{"x-extensible": True})}
)
EXPECTATION = _WIRE.record(Expectation, sparse=True)
_WIRE.record(RuntimeProbe)
_WIRE.record(DeviceVisibility)
PREPARATION = _WIRE.record(
    Preparation,
    formats={
        # Only Python reads it.
        "visibility": replace(
            _WIRE.of(tuple[DeviceVisibility, ...]),
            schema={
                "type": "array",
                "items": {"type": "object", "additionalProperties": {}},
            },
        ),
        # Only Python reads what is expected, and the names may grow.
        "expects": Converter(
            write=EXPECTATION.to_dict,
            read=EXPECTATION.from_dict,
            schema={"type": "object", "additionalProperties": {}},
        ),
    },
)
DESCRIBED = tuple(record for record in _WIRE.records if record is not EXPECTATION)
"""The records that the OpenAPI document describes; expectations are read by Python
only.
"""


def conditions_from_list(data: Iterable[Mapping[str, Any]]) -> Conditions:
    return tuple(map(CONDITION.from_dict, data))
