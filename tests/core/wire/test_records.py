"""Every fact of a record is on the wire, or hidden on purpose."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from jupyter_aistack.core.wire.fields import Record
from jupyter_aistack.core.wire.formats import WIRE
from jupyter_aistack.core.wire.records import DESCRIBED
from jupyter_aistack.core.wire.schemas import SCHEMAS

HIDDEN = {
    # They tell processes apart, on their host only; its name is sent in place of its id.
    "Holder": {"pid_started_at", "host_name", "boot_id", "pid_namespace", "allowance"},
    "Request": {"idempotency_key"},  # the asker's own name for it
    # Only those need it who act on memory above a limit.
    "SliceLimit": {"lowered_at", "lowered_from_bytes"},
    "Slice": {"gpu_slices", "compute_slices"},  # known from its profile
    "DeviceState": {
        "is_checked",
        "is_restored",
        "away_at",
        "away_seconds",
    },  # the worker's
    "Device": {
        "processes",
        "free_bytes",
        "least_share_bytes",
        "context_bytes",
        "own_memory_bytes",
        "strays",
        "health",
        "used_bytes",
    },  # what is in use is told by the usage
    # It stands in its device.
    "Drain": {"device_id", "device_name", "host"},
    "Stray": {"program"},  # others may see no more of the command
    "HealthCondition": {"evidence"},  # its provider's
    "Reservation": {"host"},  # all are of the host that is asked
    "SuspendCapability": {"is_being_tested"},
    "Event": {  # the audit trail's
        *("owner", "before", "after", "user", "uid", "pid"),
        *("command", "host", "salt", "digest"),
    },
}
COMPUTED = {
    "Device": {"conditions"},
    "Lease": {"enforcement"},
    "DeviceState": {"standing", "why"},
}


@pytest.mark.parametrize("record", WIRE.records, ids=lambda record: record.cls.__name__)
def test_each_field_is_on_the_wire_unless_it_is_hidden_here(
    record: Record[Any],
) -> None:
    name = record.cls.__name__
    own = {each.name for each in fields(record.cls)}
    sent = own - HIDDEN.get(name, set()) | COMPUTED.get(name, set())
    assert record.written == sent


@pytest.mark.parametrize("record", DESCRIBED, ids=lambda record: record.cls.__name__)
def test_each_record_is_described_as_it_is_written(record: Record[Any]) -> None:
    assert record.written <= SCHEMAS[record.name]["properties"].keys()
