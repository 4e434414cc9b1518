"""Every fact of a record that a ledger keeps has its column."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.model.archive import ArchiveSegment
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.host import HostIdentity, HostReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.ledger.sql import schema

DERIVED = {Lease: {"host", "due_at"}, Request: {"host"}}
"""Columns by which rows are found."""
TABLES: list[tuple[Any, Any]] = [
    (Lease, schema.leases),
    (Request, schema.requests),
    (HostIdentity, schema.hosts),
    (HostReport, schema.host_reports),
    (Account, schema.accounts),
    (Reservation, schema.reservations),
    (MeterState, schema.meters),
    (UsageRecord, schema.charges),
    (CellInterval, schema.cells),
    (Event, schema.events),
    (DeviceFault, schema.device_faults),
    (ArchiveSegment, schema.archives),
]


@pytest.mark.parametrize(("record", "table"), TABLES, ids=lambda value: str(value)[:40])
def test_the_columns_are_the_fields(record: Any, table: Any) -> None:
    own = {each.name for each in fields(record)}
    columns = {column.name for column in table.columns}
    assert columns == own | DERIVED.get(record, set())
