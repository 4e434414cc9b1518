"""What a ledger keeps, to and from the columns of its tables.

The columns of a table are the fields of its record; what is different is noted where
the record is registered. Records inside others are kept as JSON.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_type_hints

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.model.archive import ArchiveSegment
from jupyter_aistack.core.model.condition import Condition, Conditions
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.host import HostIdentity, HostReport, ReportedDevice
from jupyter_aistack.core.model.lease import Lease, Notice
from jupyter_aistack.core.model.limit import Limits, SliceLimit
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.core.wire.fields import Converter, Converters
from jupyter_aistack.ledger.lease_end import due_at

FIXED_OF_LEASE = frozenset(
    {"id", "request_id", "spec", "slices", "queue", "granted_at", "preemptible"}
    | {"up_to"}
)
"""Columns of a lease that never change; any other may, so a row is the same only while
those are.
"""

FIXED_OF_QUEUED = frozenset(
    {
        "spec",
        "queue",
        "priority",
        "lease_seconds",
        "patience_seconds",
        "preemptible",
        "up_to",
    }
    | {"submitted_at", "state", "reason", "code", "lease_id", "idempotency_key"}
)
"""Columns of a request that never change while it waits; the host, which does not
either, tells whose it is.
"""


def storable(text: str) -> str:
    """`text` without what a database cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


_PLAIN = Converter()
_SPEC = Converter(write=str, read=functools.lru_cache(maxsize=4096)(parse_spec))
_SCALARS: dict[Any, Converter] = {
    str: _PLAIN,
    bool: _PLAIN,
    int: _PLAIN,
    float: _PLAIN,
    Spec: _SPEC,
    Fraction: Converter(write=str, read=Fraction),
}

_INSIDE = Converters(_SCALARS)
"""What is inside a JSON column."""
# Most of a holder is empty, and it is in every row.
# The same few names come in all rows: as one object each they are compared at once.
_NAME = Converter(read=sys.intern)
_HOLDER = _INSIDE.record(
    Holder,
    sparse=True,
    formats=dict.fromkeys(("user", "host", "host_name", "boot_id"), _NAME),
)
_INSIDE.record(Slice)
_INSIDE.record(Notice)
_INSIDE.record(Condition)
_INSIDE.record(SliceLimit)
_INSIDE.record(DeviceState)
_INSIDE.record(Drain)
_INSIDE.record(ReportedDevice)


def _json_column(hint: Any, *, is_cached: bool = False) -> Converter:
    """A column that holds values of a type as JSON text.

    Args:
        is_cached: the same texts come again and again.
    """
    inside = _INSIDE.of(hint)
    write_value = inside.write
    read_value = inside.read
    assert write_value is not None
    assert read_value is not None

    def write(value: Any) -> str:
        return json.dumps(write_value(value), separators=(",", ":"))

    def read(text: str) -> Any:
        return read_value(json.loads(text))

    cached = functools.lru_cache(maxsize=4096)(read) if is_cached else read
    return Converter(write=write, read=cached)


@functools.lru_cache(maxsize=4096)
def _holder_from_json(text: str) -> Holder:
    # Earlier versions left out these as well when they were empty.
    return _HOLDER.from_dict({"id": "", "user": "", "host": "", **json.loads(text)})


_COLUMNS = Converters(
    {
        **_SCALARS,
        Holder: replace(_json_column(Holder), read=_holder_from_json),
        tuple[Slice, ...]: _json_column(tuple[Slice, ...], is_cached=True),
        Conditions: _json_column(Conditions, is_cached=True),
        Limits: _json_column(Limits, is_cached=True),
        Notice: _json_column(Notice),
        DeviceState: _json_column(DeviceState),
        tuple[ReportedDevice, ...]: _json_column(
            tuple[ReportedDevice, ...], is_cached=True
        ),
        tuple[float, ...]: _json_column(tuple[float, ...]),
    }
)
# Texts that come from outside; in a JSON column nothing need be taken out of them.
_OUTSIDE = Converter(write=storable)


def _outside(*names: str) -> dict[str, Converter]:
    return dict.fromkeys(names, _OUTSIDE)


_LEASE = _COLUMNS.record(Lease)
_REQUEST = _COLUMNS.record(Request, formats=_outside("reason", "idempotency_key"))
_HOST = _COLUMNS.record(HostIdentity, formats=_outside("name", "machine"))
_HOST_REPORT = _COLUMNS.record(HostReport, formats=_outside("host_name", "allowance"))
_DEVICE_FAULT = _COLUMNS.record(
    DeviceFault, formats=_outside("device_id", "message", "evidence")
)
_ACCOUNT = _COLUMNS.record(Account, formats=_outside("user"))
_RESERVATION = _COLUMNS.record(Reservation, formats=_outside("name", "created_by"))
_METER = _COLUMNS.record(MeterState)
_CHARGE = _COLUMNS.record(
    UsageRecord,
    formats=_outside("user", "queue", "owner", "label", "cell", "spec"),
)
_SPAN = _COLUMNS.record(CellInterval, formats=_outside("user", "owner", "cell"))
_SEGMENT = _COLUMNS.record(ArchiveSegment, formats=_outside("host", "file"))
_EVENT = _COLUMNS.record(
    Event,
    formats=_outside("detail", "owner", "before", "after", "user", "command", "host"),
)

_DRAINS = _json_column(tuple[Drain, ...], is_cached=True)


def drains_from_text(text: str) -> tuple[Drain, ...]:
    """The drains that stand beside the counters."""
    read = _DRAINS.read
    assert read is not None
    drains: tuple[Drain, ...] = read(text)
    return drains


def drains_to_text(drains: tuple[Drain, ...]) -> str:
    """The same as they are written."""
    write = _DRAINS.write
    assert write is not None
    text: str = write(drains)
    return text


lease_from_row = _LEASE.from_dict
request_from_row = _REQUEST.from_dict
host_to_row = _HOST.to_dict
host_from_row = _HOST.from_dict
host_report_to_row = _HOST_REPORT.to_dict
host_report_from_row = _HOST_REPORT.from_dict
device_fault_to_row = _DEVICE_FAULT.to_dict
device_fault_from_row = _DEVICE_FAULT.from_dict
account_to_row = _ACCOUNT.to_dict
account_from_row = _ACCOUNT.from_dict
reservation_to_row = _RESERVATION.to_dict
reservation_from_row = _RESERVATION.from_dict
meter_to_row = _METER.to_dict
meter_from_row = _METER.from_dict
charge_to_row = _CHARGE.to_dict
charge_from_row = _CHARGE.from_dict
span_to_row = _SPAN.to_dict
span_from_row = _SPAN.from_dict
segment_to_row = _SEGMENT.to_dict
segment_from_row = _SEGMENT.from_dict
event_to_row = _EVENT.to_dict
event_from_row = _EVENT.from_dict


def user_of_request(row: Mapping[str, Any]) -> str:
    """Whose a request is."""
    return _holder_from_json(row["holder"]).user


_LEASE_HINTS = get_type_hints(Lease)


def read_lease_column(name: str, value: object) -> Any:
    """The value of one column of a lease. Raises whatever its text makes it raise."""
    read = _COLUMNS.of(_LEASE_HINTS[name]).read
    return value if read is None else read(value)


def lease_to_row(lease: Lease) -> dict[str, Any]:
    """The columns of a lease; ``due_at`` is set while it lives, so that live leases are
    found by index.
    """
    due = due_at(lease) if lease.is_live else None
    return {**_LEASE.to_dict(lease), "host": lease.holder.host, "due_at": due}


def request_to_row(request: Request) -> dict[str, Any]:
    """The columns of a request."""
    return {**_REQUEST.to_dict(request), "host": request.holder.host}


def as_stored(request: Request) -> Request:
    """A request as it is read again: without what a database cannot hold."""
    reason = storable(request.reason)
    key = storable(request.idempotency_key)
    if (reason, key) == (request.reason, request.idempotency_key):
        return request
    return replace(request, reason=reason, idempotency_key=key)


def key_of_charge(key: Key) -> dict[str, Any]:
    """The key of a charge, as statements look for it."""
    host, device_id, lease_id, cell, day = key
    place = {"of_host": host, "of_device_id": device_id, "of_lease_id": lease_id}
    return {**place, "of_cell": storable(cell), "of_day": day}


def key_of_span(span: CellInterval) -> dict[str, Any]:
    """The key of a span, as statements look for it."""
    row = span_to_row(span)
    key = ("host", "user", "owner", "cell", "began_at")
    return {f"of_{name}": row[name] for name in key}
