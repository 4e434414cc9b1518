"""The tables of a ledger in a database, as one transaction sees and changes them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.host import HostIdentity, HostReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.ledger.rows import is_id

from . import codec
from .cache import Traits
from .history_rows import HistoryRows
from .statements import Statement
from .transaction import OpenDatabase

_FEW = 64
"""So many rows are read one by one; more, with all the others."""


class SQLRows(HistoryRows):
    """The tables, as one transaction sees them."""

    def __init__(
        self,
        connection: sa.PoolProxiedConnection,
        opened: OpenDatabase,
        *,
        is_sqlite: bool,
    ) -> None:
        super().__init__(connection, opened, is_sqlite=is_sqlite)
        self._known_leases: dict[str, Lease] = {}
        self._known_requests: dict[str, Request] = {}

    def expect_state(self, host: str, now: float) -> None:
        """Ask a server for all that a host's state is made of, in one round trip."""
        if self._is_sqlite:
            return
        statements = self._statements
        self._expect(statements.is_any_due, now=now)
        self._expect(statements.stamp)
        self._expect(statements.live_traits)
        self._expect(statements.queued_traits)
        self._expect(statements.accounts)
        self._expect(statements.reservations, of_host=host, now=now)

    def expect(
        self,
        *,
        due_at: float | None = None,
        leases: Iterable[str] = (),
        requests: Iterable[str] = (),
    ) -> None:
        if due_at is not None:
            statements = self._statements
            due = statements.due if self._writes else statements.is_any_due
            self._expect(due, now=due_at)
        for lease_id in filter(is_id, leases):
            self._expect(self._statements.lease, key=lease_id)
        for request_id in filter(is_id, requests):
            self._expect(self._statements.request, key=request_id)

    def next_token(self) -> int:
        counters = self._read_counters()
        counters.token += 1
        return counters.token

    def is_any_due(self, now: float) -> bool:
        return bool(self._fetch(self._statements.is_any_due, now=now))

    def due(self, now: float) -> list[Lease]:
        return [
            self._reader.lease(row)
            for row in self._select(self._statements.due, now=now)
        ]

    def lease(self, lease_id: str) -> Lease | None:
        # Under the ledger's lock nobody else changes it meanwhile.
        lease = self._known_leases.get(lease_id)
        if lease is None:
            rows = self._select(self._statements.lease, key=lease_id)
            lease = next(map(self._reader.lease, rows), None)
            if lease is not None and self._writes:
                self._known_leases[lease_id] = lease
        return lease

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        if live:
            live_leases = self._live() if host is None else self._live_of(host)
            return _newest_first(live_leases)[:limit]
        if host is None:
            rows = self._select(self._statements.leases, at_most=limit)
        else:
            rows = self._select(
                self._statements.leases_of_host, at_most=limit, of_host=host
            )
        return [self._reader.lease(row) for row in rows]

    def _live(self) -> list[Lease]:
        return [self._reader.lease(row) for row in self._select(self._statements.live)]

    def live_by_host(self) -> dict[str, list[Lease]]:
        traits = _by_host(self._statements.live_traits, self._live_traits())
        return {
            host: _newest_first(self._decoded_live(host, of_host))
            for host, of_host in traits.items()
        }

    def _live_of(self, host: str) -> list[Lease]:
        traits = _by_host(self._statements.live_traits, self._live_traits())
        return self._decoded_live(host, traits.get(host, []))

    def _live_traits(self) -> list[Traits]:
        return self._fetch(self._statements.live_traits)

    def _decoded_live(self, host: str, traits: list[Traits]) -> list[Lease]:
        def load(tokens: list[int]) -> dict[int, Lease]:
            if len(tokens) > _FEW:
                rows = self._select(self._statements.live_of_host, of_host=host)
            else:
                rows = self._select_each(self._statements.lease_of_token, tokens)
            return {row["token"]: self._reader.lease(row) for row in rows}

        return self._opened.leases.decoded(host, traits, load)

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        row = codec.lease_to_row(lease)
        self._known_leases.pop(lease.id, None)
        self._forget_expected(self._statements.lease, lease.id)
        if is_new:
            self._execute(self._statements.insert_lease, **row)
        else:
            self._execute(self._statements.update_lease, **row, key=lease.token)

    def request(self, request_id: str) -> Request | None:
        request = self._known_requests.get(request_id)
        if request is None:
            rows = self._select(self._statements.request, key=request_id)
            request = next(iter(self._requests(rows)), None)
            if request is not None and self._writes:
                self._known_requests[request_id] = request
        return request

    def requests_of_key(self, key: str) -> list[Request]:
        rows = self._select(
            self._statements.requests_of_key, of_key=codec.storable(key)
        )
        return self._requests(rows)

    def queued(self, host: str) -> list[Request]:
        return self.queued_beside(host)[0]

    def queued_beside(self, host: str) -> tuple[list[Request], Mapping[str, int]]:
        statement = self._statements.queued_traits
        traits = _by_host(statement, self._fetch(statement))
        own = self._decoded_queued(host, traits.pop(host, []))
        others = map(statement.mapping, itertools.chain.from_iterable(traits.values()))
        users = self._reader.readable("request", others, codec.user_of_request)
        return own, Counter(users)

    def all_queued(self) -> list[Request]:
        return self._requests(self._select(self._statements.all_queued))

    def _decoded_queued(self, host: str, traits: list[Traits]) -> list[Request]:
        def load(ids: list[str]) -> dict[str, Request]:
            if len(ids) > _FEW:
                rows = self._select(self._statements.queued, of_host=host)
            else:
                rows = self._select_each(self._statements.request, ids)
            return {request.id: request for request in self._requests(rows)}

        return self._opened.queued.decoded(host, traits, load)

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        row = codec.request_to_row(request)
        self._known_requests.pop(request.id, None)
        self._forget_expected(self._statements.request, request.id)
        if is_new:
            self._execute(self._statements.insert_request, **row)
        else:
            self._execute(self._statements.update_request, **row, key=request.id)

    def hosts(self) -> list[HostIdentity]:
        return [
            codec.host_from_row(row) for row in self._select(self._statements.hosts)
        ]

    def keep_host(self, host: HostIdentity, *, is_new: bool = False) -> None:
        row = codec.host_to_row(host)
        if is_new:
            self._execute(self._statements.insert_host, **row)
        else:
            key = {"of_id": row["id"], "of_name": row["name"]}
            self._execute(self._statements.update_host, **row, **key)

    def remove_host(self, host_id: str) -> None:
        self._execute(self._statements.delete_host, key=host_id)

    def host_reports(self) -> list[HostReport]:
        rows = self._select(self._statements.host_reports)
        read = codec.host_report_from_row
        return self._reader.readable("host report", rows, read)

    def keep_host_report(self, report: HostReport, *, is_new: bool = False) -> None:
        row = codec.host_report_to_row(report)
        if is_new:
            self._execute(self._statements.insert_host_report, **row)
            return
        key = {"of_host": row["host"], "of_allowance": row["allowance"]}
        self._execute(self._statements.update_host_report, **row, **key)

    def remove_host_reports(self, host: str) -> None:
        self._execute(self._statements.delete_host_reports, of_host=host)

    def device_faults(self, host: str) -> list[DeviceFault]:
        rows = self._select(self._statements.device_faults, of_host=host)
        return list(map(self._reader.device_fault, rows))

    def keep_device_fault(self, fault: DeviceFault) -> None:
        row = codec.device_fault_to_row(fault)
        self._execute(self._statements.insert_device_fault, **row)

    def remove_device_faults(self, host: str, device_id: str) -> None:
        key = {"of_host": host, "of_device_id": device_id}
        self._execute(self._statements.delete_device_faults, **key)

    def accounts(self) -> list[Account]:
        return [
            codec.account_from_row(row)
            for row in self._select(self._statements.accounts)
        ]

    def account(self, user: str, queue: str) -> Account | None:
        rows = self._select(
            self._statements.account, of_user=codec.storable(user), of_queue=queue
        )
        return next((codec.account_from_row(row) for row in rows), None)

    def keep_account(self, account: Account, *, is_new: bool = False) -> None:
        row = codec.account_to_row(account)
        if is_new:
            self._execute(self._statements.insert_account, **row)
        else:
            self._execute(
                self._statements.update_account,
                **row,
                of_user=row["user"],
                of_queue=row["queue"],
            )

    def reservation(self, reservation_id: str) -> Reservation | None:
        rows = self._select(self._statements.reservation, key=reservation_id)
        return next(iter(self._reservations(rows)), None)

    def reservations(self, host: str, now: float) -> list[Reservation]:
        rows = self._select(self._statements.reservations, of_host=host, now=now)
        return self._reservations(rows)

    def add_reservation(self, reservation: Reservation) -> None:
        self._execute(
            self._statements.insert_reservation, **codec.reservation_to_row(reservation)
        )

    def remove_reservation(self, reservation_id: str) -> None:
        self._execute(self._statements.delete_reservation, key=reservation_id)

    def meters(self, host: str) -> list[MeterState]:
        return [
            codec.meter_from_row(row)
            for row in self._select(self._statements.meters, of_host=host)
        ]

    def keep_meter(self, meter: MeterState, *, is_new: bool = False) -> None:
        row = codec.meter_to_row(meter)
        if is_new:
            self._execute(self._statements.insert_meter, **row)
        else:
            self._execute(
                self._statements.update_meter,
                **row,
                of_host=meter.host,
                of_device=meter.device_id,
            )

    def charge(self, key: Key) -> UsageRecord | None:
        rows = self._select(self._statements.charge, **codec.key_of_charge(key))
        return next((self._reader.charge(row) for row in rows), None)

    def charges(
        self,
        since: int,
        until: int,
        *,
        user: str | None,
        label: str | None,
        owner: str | None,
    ) -> list[UsageRecord]:
        questions = {"user": user, "label": label, "owner": owner}
        asked = {
            name: codec.storable(value)
            for name, value in questions.items()
            if value is not None
        }
        statement = self._statements.charges[tuple(asked)]
        values = {f"of_{name}": value for name, value in asked.items()}
        return [
            self._reader.charge(row)
            for row in self._select(statement, since=since, until=until, **values)
        ]

    def old_cells(self, before: int, limit: int) -> list[UsageRecord]:
        rows = self._select(self._statements.old_cells, before=before, at_most=limit)
        return [self._reader.charge(row) for row in rows]

    def keep_charge(self, charge: UsageRecord, *, is_new: bool = False) -> None:
        row = codec.charge_to_row(charge)
        if is_new:
            self._execute(self._statements.insert_charge, **row)
        else:
            self._execute(
                self._statements.update_charge, **row, **codec.key_of_charge(charge.key)
            )

    def remove_charge(self, key: Key) -> None:
        self._execute(self._statements.delete_charge, **codec.key_of_charge(key))

    def span(self, span: CellInterval) -> CellInterval | None:
        rows = self._select(self._statements.span, **codec.key_of_span(span))
        return next((codec.span_from_row(row) for row in rows), None)

    def keep_span(self, span: CellInterval, *, is_new: bool = False) -> None:
        row = codec.span_to_row(span)
        if is_new:
            self._execute(self._statements.insert_span, **row)
        else:
            self._execute(
                self._statements.update_span, **row, **codec.key_of_span(span)
            )

    def spans(self, host: str, since: float) -> list[CellInterval]:
        return [
            codec.span_from_row(row)
            for row in self._select(self._statements.spans, of_host=host, since=since)
        ]

    def remove_spans(self, host: str, ended_before: float, begun_before: float) -> None:
        times = {"ended_before": ended_before, "begun_before": begun_before}
        self._execute(self._statements.delete_spans, of_host=host, **times)

    def _requests(self, rows: Iterable[Mapping[str, Any]]) -> list[Request]:
        return self._reader.readable("request", rows, codec.request_from_row)

    def _reservations(self, rows: Iterable[Mapping[str, Any]]) -> list[Reservation]:
        read = codec.reservation_from_row
        return self._reader.readable("reservation", rows, read)


def _newest_first(leases: Iterable[Lease]) -> list[Lease]:
    return sorted(leases, key=attrgetter("token"), reverse=True)


def _by_host(
    statement: Statement, traits: Iterable[Traits]
) -> defaultdict[str, list[Traits]]:
    """Rows of traits by the host that each is of."""
    host = statement.columns.index("host")
    grouped: defaultdict[str, list[Traits]] = defaultdict(list)
    for row in traits:
        grouped[str(row[host])].append(row)
    return grouped
