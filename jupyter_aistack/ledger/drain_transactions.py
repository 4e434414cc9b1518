"""What a ledger keeps of devices that are out of placement by hand.

The drains are few and a plan must know them all: they stand in the row that every
transaction reads first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from jupyter_aistack.core.audit.changes import as_text
from jupyter_aistack.core.model.condition import ConditionKind, ConditionUpdate
from jupyter_aistack.core.model.drain import Drain, drained_condition
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease

from .rows import Rows, keep_conditions, lease_event
from .transactions import LARGEST, Transactions

_TOLD = ConditionKind.DEVICE_DRAINED


class DrainTransactions(Transactions):
    """The part of the port that takes devices out of placement by hand."""

    def drain(self, drain: Drain, now: float) -> None:
        with self._changing(now) as rows:
            others = [each for each in rows.drains() if not _is_same(each, drain)]
            _keep(rows, (*others, drain))
            drained = _event(EventKind.DEVICE_DRAINED, drain, now, drain.text)
            rows.append(replace(drained, after=_facts(drain)))
            update = _told(drain, now)
            for lease in _leases_on(rows, drain.host, {drain.device_id}):
                told = keep_conditions(rows, lease, update)
                kind = EventKind.LEASE_DRAINED
                rows.append(lease_event(kind, told, now, update.text, was=lease))

    def undrain(self, host: str, device_id: str, now: float) -> Drain | None:
        with self._changing(now) as rows:
            for drain in rows.drains():
                if (drain.host, drain.device_id) == (host, device_id):
                    _end(rows, [drain], now)
                    return drain
            return None

    def end_drains(self, host: str, now: float) -> tuple[Drain, ...]:
        with self._changing(now) as rows:
            of_host = (drain for drain in rows.drains() if drain.host == host)
            over = [drain for drain in of_host if drain.is_over(now)]
            if over:
                _end(rows, over, now)
            return tuple(over)


def _end(rows: Rows, over: Collection[Drain], now: float) -> None:
    """Drains of one host end."""
    kept = tuple(drain for drain in rows.drains() if drain not in over)
    _keep(rows, kept)
    for drain in over:
        detail = "it may be granted again"
        undrained = _event(EventKind.DEVICE_UNDRAINED, drain, now, detail)
        rows.append(replace(undrained, before=_facts(drain)))
    host = next(iter(over)).host
    still = {drain.device_id: drain for drain in kept if drain.host == host}
    for lease in _leases_on(rows, host, {drain.device_id for drain in over}):
        update = ConditionUpdate(clear=frozenset({_TOLD}))
        for device_id in still.keys() & _devices(lease):
            update = _told(still[device_id], now)
        keep_conditions(rows, lease, update)


def _told(drain: Drain, now: float) -> ConditionUpdate:
    return ConditionUpdate(put=(drained_condition(drain, now),))


def _keep(rows: Rows, drains: tuple[Drain, ...]) -> None:
    rows.keep_drains(drains)
    rows.version += 1  # plans that would grant otherwise must be made anew


def _is_same(drain: Drain, other: Drain) -> bool:
    return (drain.host, drain.device_id) == (other.host, other.device_id)


def _leases_on(rows: Rows, host: str, devices: Collection[str]) -> list[Lease]:
    leases = rows.leases(host=host, live=True, limit=LARGEST)
    return [lease for lease in leases if not _devices(lease).isdisjoint(devices)]


def _devices(lease: Lease) -> set[str]:
    return {slice_.device_id for slice_ in lease.slices}


def _facts(drain: Drain) -> str:
    """What the audit trail keeps of a drain."""
    return as_text(
        {
            "kind": drain.kind.value,
            "until": drain.until,
            "since": drain.since,
            "created_by": drain.created_by,
        }
    )


def _event(kind: EventKind, drain: Drain, now: float, detail: str) -> Event:
    return Event(kind=kind, at=now, detail=detail, device_id=drain.device_id)
