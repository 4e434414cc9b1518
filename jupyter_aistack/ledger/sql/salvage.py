"""Rows that cannot be read: said once, and the others go on.

A row of a lease keeps its devices held whatever else of it is lost, since what cannot
be read frees nothing; nor does a fault of a device. A request, a reservation or an
event is left out.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from jupyter_aistack.core.accounting.charges import UsageRecord
from jupyter_aistack.core.model.device import EVERY_DEVICE, SliceKind
from jupyter_aistack.core.model.device_health import DeviceFault, HealthCode
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.exceptions import AIStackError

from . import codec

T = TypeVar("T")
Row = Mapping[str, Any]

UNREADABLE = (AIStackError, ArithmeticError, AttributeError, LookupError, TypeError)
"""What decoders raise for a row that none has written, beside ValueError."""
_DEVICE = re.compile(r'"device_id": ?"([^"]+)"')
_EMPTY = "[]"

log = logging.getLogger(__name__)


class RowReader:
    """Decodes the rows of one ledger. Threads may share it.

    Args:
        shown_url: the ledger, for people.
    """

    def __init__(self, shown_url: str) -> None:
        self._shown_url = shown_url
        self._lock = threading.Lock()
        self._known: dict[tuple[str, object], str] = {}

    def problems(self) -> tuple[str, ...]:
        """What could not be read so far, one sentence each."""
        with self._lock:
            return tuple(self._known.values())

    def lease(self, row: Row) -> Lease:
        """A lease; where it cannot be read, as much of it as can be."""
        try:
            return codec.lease_from_row(row)
        except (*UNREADABLE, ValueError):
            self._note("lease", row["id"], "what it holds stays held")
        return _salvaged_lease(row)

    def charge(self, row: Row) -> UsageRecord:
        """A charge; where its levels cannot be read, without them."""
        try:
            return codec.charge_from_row(row)
        except (*UNREADABLE, ValueError):
            self._note("charge", row["lease_id"], "its levels are left out")
        return codec.charge_from_row({**row, "levels": _EMPTY})

    def device_fault(self, row: Row) -> DeviceFault:
        """A fault of a device; one of which the kind is lost keeps its device out of
        placement until that is seen to be reset.
        """
        try:
            return codec.device_fault_from_row(row)
        except (*UNREADABLE, ValueError):
            consequence = "the device stays out of placement until it was reset"
            self._note("fault of", row["device_id"], consequence)
        code = HealthCode.XID_ERROR.value
        return codec.device_fault_from_row({**row, "code": code, "evidence": ""})

    def readable(
        self, what: str, rows: Iterable[Row], decode: Callable[[Row], T]
    ) -> list[T]:
        """What those rows say that can be read."""
        values = []
        for row in rows:
            try:
                values.append(decode(row))
            except (*UNREADABLE, ValueError):
                key = row.get("id", row.get("sequence", row.get("host")))
                self._note(what, key, "it is left out")
        return values

    def _note(self, what: str, key: object, consequence: str) -> None:
        sentence = (
            f"ledger_url: the {what} {key} in {self._shown_url} cannot be read; "
            f"{consequence}"
        )
        with self._lock:
            is_new = (what, key) not in self._known
            self._known[what, key] = sentence
        if is_new:
            log.warning("%s", sentence)


def _salvaged_lease(row: Row) -> Lease:
    """As much of a lease as can be read, and what does no harm for the rest."""
    is_live = row["due_at"] is not None
    substitutes = {
        "spec": "1",
        "holder": _unknown_holder(row),
        "slices": _all_of_its_devices(str(row["slices"])),
        "state": LeaseState.ACTIVE.value if is_live else LeaseState.ENDED.value,
        "conditions": _EMPTY,
        "notice": None,
        "residence": None,
        "enforced_by": None,
        "outcome": None if is_live else Outcome.FAILED.value,
    }
    lost = {
        name: substitute
        for name, substitute in substitutes.items()
        if not _is_readable(name, row[name])
    }
    return codec.lease_from_row({**row, **lost})


def _is_readable(column: str, value: object) -> bool:
    try:
        codec.read_lease_column(column, value)
    except (*UNREADABLE, ValueError):
        return False
    return True


def _unknown_holder(row: Row) -> str:
    holder = {"kind": HolderKind.PROCESS.value, "id": str(row["id"]), "user": ""}
    return json.dumps({**holder, "host": row["host"], "label": "unreadable"})


def _all_of_its_devices(text: str) -> str:
    """Each device that what is left of the text names, whole; where it names none it may
    be any.
    """
    devices = dict.fromkeys(_DEVICE.findall(text)) or [EVERY_DEVICE]
    kind = SliceKind.SHARE.value
    slices = [
        {"device_id": device, "kind": kind, "fraction": "1", "memory_bytes": 0}
        for device in devices
    ]
    return json.dumps(slices)
