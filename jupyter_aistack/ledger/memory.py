"""A ledger in this process's memory, for tests and for trying things out."""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from operator import attrgetter
from typing import Any

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
    day_of,
)
from jupyter_aistack.core.audit.chain import Link, Row
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKey, RecordKind
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.host import HostIdentity, HostReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account

from .audit_trail import old_beginning, sealed
from .rows import Rows
from .transactional import TransactionalLedger


class MemoryLedger(TransactionalLedger):
    """The ledger's twin without a file: the same contract, gone with the process."""

    def __init__(self) -> None:
        self._rows = _MemoryRows()
        self._lock = threading.Lock()

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._lock:
            yield self._rows

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        # Nothing needs undoing: the rules check first and change afterwards.
        with self._lock:
            yield self._rows

    def hold_presence(self, process: ProcessIdentity) -> None:
        pass

    def presence(self, process: ProcessIdentity) -> Liveness:
        is_self = process.pid == os.getpid()
        return Liveness.ALIVE if is_self else Liveness.UNKNOWN

    def has_witness(self, process: ProcessIdentity) -> bool:
        return False

    def close(self) -> None:
        pass


class _MemoryRows:
    """Dictionaries that answer as tables would."""

    def __init__(self) -> None:
        self.version = 0
        self._token = 0
        self._leases: dict[str, Lease] = {}  # in the order of their tokens
        self._live: dict[str, Lease] = {}
        self._requests: dict[str, Request] = {}
        self._queued: dict[str, Request] = {}
        self._hosts: dict[tuple[str, str], HostIdentity] = {}
        self._host_reports: dict[tuple[str, str], HostReport] = {}
        self._device_faults: list[DeviceFault] = []
        self._drains: tuple[Drain, ...] = ()
        self._ids_of_key: dict[str, list[str]] = {}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._reservations: dict[str, Reservation] = {}
        self._meters: dict[tuple[str, str], MeterState] = {}
        self._charges: dict[Key, UsageRecord] = {}
        self._spans: dict[tuple[str, str, str, str, float], CellInterval] = {}
        self._events: list[Event] = []
        self.chain_end = Link()
        self._segments: dict[int, ArchiveSegment] = {}

    def expect(self, **_expected: object) -> None:
        """Nothing is waited for."""

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def is_any_due(self, now: float) -> bool:
        return any(lease.is_expired(now) for lease in self._live.values())

    def due(self, now: float) -> list[Lease]:
        return [lease for lease in self._live.values() if lease.is_expired(now)]

    def lease(self, lease_id: str) -> Lease | None:
        return self._leases.get(lease_id)

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        table = self._live if live else self._leases
        return [
            lease
            for lease in reversed(table.values())
            if host in (None, lease.holder.host)
        ][:limit]

    def live_by_host(self) -> dict[str, list[Lease]]:
        live: defaultdict[str, list[Lease]] = defaultdict(list)
        for lease in reversed(self._live.values()):
            live[lease.holder.host].append(lease)
        return live

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        self._leases[lease.id] = lease
        if lease.is_live:
            self._live[lease.id] = lease
        else:
            self._live.pop(lease.id, None)

    def request(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def requests_named(self, request_id: str, key: str) -> list[Request]:
        ids = (request_id, *self._ids_of_key.get(key, ()))
        return [self._requests[name] for name in ids if name in self._requests]

    def queued(self, host: str) -> list[Request]:
        return [
            request for request in self._queued.values() if request.holder.host == host
        ]

    def queued_beside(self, host: str) -> tuple[list[Request], Mapping[str, int]]:
        queued = self._queued.values()
        others = (each.holder for each in queued if each.holder.host != host)
        return self.queued(host), Counter(holder.user for holder in others)

    def all_queued(self) -> list[Request]:
        return list(self._queued.values())

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        self._requests[request.id] = request
        if is_new and request.idempotency_key:
            ids = self._ids_of_key.setdefault(request.idempotency_key, [])
            ids.append(request.id)
        if request.state is RequestState.QUEUED:
            self._queued[request.id] = request
        else:
            self._queued.pop(request.id, None)

    def hosts(self) -> list[HostIdentity]:
        return list(self._hosts.values())

    def keep_host(self, host: HostIdentity, *, is_new: bool = False) -> None:
        self._hosts[host.id, host.name] = host

    def remove_host(self, host_id: str) -> None:
        kept = self._hosts.items()
        self._hosts = {key: host for key, host in kept if host.id != host_id}

    def drains(self) -> tuple[Drain, ...]:
        return self._drains

    def keep_drains(self, drains: tuple[Drain, ...]) -> None:
        self._drains = drains

    def host_reports(self) -> list[HostReport]:
        return list(self._host_reports.values())

    def keep_host_report(self, report: HostReport, *, is_new: bool = False) -> None:
        self._host_reports[report.host, report.allowance] = report

    def remove_host_reports(self, host: str) -> None:
        kept = self._host_reports.items()
        self._host_reports = {key: each for key, each in kept if each.host != host}

    def device_faults(self, host: str) -> list[DeviceFault]:
        return [fault for fault in self._device_faults if fault.host == host]

    def keep_device_fault(self, fault: DeviceFault) -> None:
        self._device_faults.append(fault)

    def remove_device_faults(self, host: str, device_id: str) -> None:
        kept = self._device_faults
        place = (host, device_id)
        self._device_faults = [
            fault for fault in kept if (fault.host, fault.device_id) != place
        ]

    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def account(self, user: str, queue: str) -> Account | None:
        return self._accounts.get((user, queue))

    def keep_account(self, account: Account, *, is_new: bool = False) -> None:
        self._accounts[account.user, account.queue] = account

    def reservation(self, reservation_id: str) -> Reservation | None:
        return self._reservations.get(reservation_id)

    def reservations(self, host: str, now: float) -> list[Reservation]:
        return [
            kept
            for kept in self._reservations.values()
            if kept.host == host and kept.window(now) is not None
        ]

    def add_reservation(self, reservation: Reservation) -> None:
        self._reservations[reservation.id] = reservation

    def remove_reservation(self, reservation_id: str) -> None:
        del self._reservations[reservation_id]

    def meters(self, host: str) -> list[MeterState]:
        return [meter for meter in self._meters.values() if meter.host == host]

    def keep_meter(self, meter: MeterState, *, is_new: bool = False) -> None:
        self._meters[meter.host, meter.device_id] = meter

    def charge(self, key: Key) -> UsageRecord | None:
        return self._charges.get(key)

    def charges(
        self,
        since: int,
        until: int,
        *,
        user: str | None,
        label: str | None,
        owner: str | None,
    ) -> list[UsageRecord]:
        def is_wanted(record: UsageRecord) -> bool:
            is_whose = (
                user in (None, record.user)
                and label in (None, record.label)
                and owner in (None, record.owner)
            )
            return since <= record.day <= until and is_whose

        return [charge for charge in self._charges.values() if is_wanted(charge)]

    def old_cells(self, before: int, limit: int) -> list[UsageRecord]:
        return [
            charge
            for charge in self._charges.values()
            if charge.cell and charge.day < before
        ][:limit]

    def keep_charge(self, charge: UsageRecord, *, is_new: bool = False) -> None:
        self._charges[charge.key] = charge

    def remove_charge(self, key: Key) -> None:
        del self._charges[key]

    def span(self, span: CellInterval) -> CellInterval | None:
        return self._spans.get(_place(span))

    def keep_span(self, span: CellInterval, *, is_new: bool = False) -> None:
        self._spans[_place(span)] = span

    def spans(self, host: str, since: float) -> list[CellInterval]:
        own = [span for span in self._spans.values() if span.host == host]
        return [span for span in own if span.ended_at is None or span.ended_at > since]

    def remove_spans(self, host: str, ended_before: float, begun_before: float) -> None:
        for place, span in list(self._spans.items()):
            is_old = (
                span.began_at < begun_before
                if span.ended_at is None
                else span.ended_at < ended_before
            )
            if span.host == host and is_old:
                del self._spans[place]

    def append(self, event: Event) -> None:
        row, self.chain_end = sealed(event, self.chain_end, vars)
        self._events.append(Event(**row))

    def events(self, after: int, limit: int) -> list[Event]:
        first = bisect_right(self._events, after, key=attrgetter("sequence"))
        return self._events[first : first + limit]

    def event_rows(self, after: int, limit: int) -> list[Row]:
        return [vars(event) for event in self.events(after, limit)]

    def told_events(
        self, after: int, limit: int, *, since: float, user: str | None
    ) -> list[Row]:
        told = [
            vars(event)
            for event in self.events(after, len(self._events))
            if event.at >= since and user in (None, event.user, event.owner)
        ]
        return list(told[:limit])

    def chained_after(self) -> int:
        return 0

    def old_keys(
        self, kind: RecordKind, before: float, now: float, limit: int
    ) -> Sequence[RecordKey]:
        if kind is RecordKind.EVENTS:
            times = [(event.sequence, event.at) for event in self._events[:limit]]
            return old_beginning(times, before, now)
        if kind is RecordKind.CELLS:
            return [list(each.key) for each in self.old_cells(day_of(before), limit)]
        if kind is RecordKind.REQUESTS:
            return [
                request.id
                for request in self._requests.values()
                if request.submitted_at < before and self._may_leave(request)
            ][:limit]
        return [
            lease.token
            for lease in self._leases.values()
            if lease.ended_at is not None and lease.ended_at < before
        ][:limit]

    def _may_leave(self, request: Request) -> bool:
        is_decided = request.state is not RequestState.QUEUED
        return is_decided and request.lease_id not in self._leases

    def kept_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> list[Row]:
        kept = self._of_kind(kind)
        return [_flat(kept[_hashable(key)]) for key in keys if _hashable(key) in kept]

    def remove_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> None:
        kept = self._of_kind(kind)
        for key in keys:
            gone = kept.get(_hashable(key))
            if isinstance(gone, Lease):
                del self._leases[gone.id]
            if isinstance(gone, Request):
                self._forget(gone)
            if isinstance(gone, Event):
                self._events.remove(gone)

    def _forget(self, request: Request) -> None:
        del self._requests[request.id]
        ids = self._ids_of_key.get(request.idempotency_key, [])
        if request.id in ids:
            ids.remove(request.id)

    def _of_kind(self, kind: RecordKind) -> Mapping[Any, Any]:
        if kind is RecordKind.LEASES:
            return {lease.token: lease for lease in self._leases.values()}
        if kind is RecordKind.EVENTS:
            return {event.sequence: event for event in self._events}
        if kind is RecordKind.CELLS:
            return self._charges
        return self._requests

    def segments(self) -> list[ArchiveSegment]:
        return list(self._segments.values())

    def keep_segment(self, segment: ArchiveSegment, *, is_new: bool = False) -> None:
        self._segments[segment.number] = segment


def _hashable(key: RecordKey) -> Hashable:
    return key if isinstance(key, str | int) else tuple(key)


def _flat(record: Any) -> Row:
    """A record as a table would keep it: what is no text or number is JSON."""
    values = asdict(record)
    for name, value in values.items():
        if is_dataclass(getattr(record, name)) or isinstance(value, tuple):
            values[name] = json.dumps(value, default=str)
        elif not isinstance(value, str | int | float | None):
            values[name] = str(value)
    return values


def _place(span: CellInterval) -> tuple[str, str, str, str, float]:
    return (span.host, span.user, span.owner, span.cell, span.began_at)
