"""What a ledger keeps of devices that are out of placement, and whom it tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jupyter_aistack.core.audit.changes import as_text
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    ConditionUpdate,
)
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease

from .rows import Rows, keep_conditions, lease_event
from .transactions import LARGEST, Transactions

_TOLD = ConditionKind.DEVICE_UNHEALTHY


class DeviceTransactions(Transactions):
    """The part of the port that keeps the faults of devices."""

    def device_faults(self, host: str) -> tuple[DeviceFault, ...]:
        with self._reading() as rows:
            return tuple(rows.device_faults(host))

    def record_device_faults(
        self,
        host: str,
        device_id: str,
        faults: Iterable[DeviceFault],
        now: float,
        told: Condition,
    ) -> None:
        with self._changing(now) as rows:
            written = rows.device_faults(host)
            known = {f.code: f for f in written if f.device_id == device_id}
            current = {fault.code: fault for fault in faults}
            rows.remove_device_faults(host, device_id)
            for fault in (known | current).values():
                rows.keep_device_fault(fault)
            for code in current.keys() - known.keys():
                detail = f"{code.value}: {current[code].message}"
                faulted = _device_event(
                    EventKind.DEVICE_FAULTED, device_id, now, detail
                )
                rows.append(replace(faulted, after=as_text({"fault": code.value})))
            _tell(rows, host, device_id, told, now, is_new=not known)

    def clear_device_faults(
        self, host: str, device_id: str, now: float, detail: str
    ) -> bool:
        with self._changing(now) as rows:
            written = rows.device_faults(host)
            faulty = {fault.device_id for fault in written}
            if device_id not in faulty:
                return False
            rows.remove_device_faults(host, device_id)
            codes = [f.code.value for f in written if f.device_id == device_id]
            recovered = _device_event(
                EventKind.DEVICE_RECOVERED, device_id, now, detail
            )
            rows.append(replace(recovered, before=as_text({"faults": codes})))
            update = ConditionUpdate(clear=frozenset({_TOLD}))
            for lease in _leases_on(rows, host, device_id):
                if not _devices(lease) & (faulty - {device_id}):
                    keep_conditions(rows, lease, update)
            return True


def _tell(
    rows: Rows,
    host: str,
    device_id: str,
    told: Condition,
    now: float,
    *,
    is_new: bool,
) -> None:
    """Tell the holders of a device: all of them when it has just failed, later those
    who do not know yet.
    """
    update = ConditionUpdate(put=(told,))
    for lease in _leases_on(rows, host, device_id):
        if is_new or lease.condition(_TOLD) is None:
            told_lease = keep_conditions(rows, lease, update)
            rows.append(
                lease_event(
                    EventKind.LEASE_FAULTED, told_lease, now, update.text, was=lease
                )
            )


def _leases_on(rows: Rows, host: str, device_id: str) -> list[Lease]:
    leases = rows.leases(host=host, live=True, limit=LARGEST)
    return [lease for lease in leases if device_id in _devices(lease)]


def _devices(lease: Lease) -> set[str]:
    return {slice_.device_id for slice_ in lease.slices}


def _device_event(kind: EventKind, device_id: str, now: float, detail: str) -> Event:
    return Event(kind=kind, at=now, detail=detail, device_id=device_id)
