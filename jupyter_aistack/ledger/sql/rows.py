"""The tables of a ledger in a database, as one transaction sees and changes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.base import LedgerState

from . import codec, schema
from .cache import DecodeCache
from .salvage import RowReader
from .statements import Statement, Statements
from .url import Identity

_FEW = 64
"""So many rows are read one by one; more, with all the others."""
_OWN_WRITES = "aistack_own_writes"
_PICTURES = "aistack_pictures"


@dataclass(frozen=True)
class OpenDatabase:
    """A database in use, and what has been read from it before."""

    engine: sa.Engine
    statements: Statements
    identity: Identity
    reader: RowReader
    leases: DecodeCache[Lease] = field(default_factory=DecodeCache)
    queued: DecodeCache[Request] = field(default_factory=DecodeCache)


@dataclass
class CachedSnapshot:
    """A state read at `stamp` and at the time `at`; nothing has been written as long as
    the stamp is the same.
    """

    stamp: tuple[int, int]
    state: LedgerState | None = None
    at: float = 0.0


class SQLRows:
    """The tables, as one transaction sees them."""

    version: int
    _token: int

    def __init__(
        self,
        connection: sa.PoolProxiedConnection,
        opened: OpenDatabase,
        *,
        is_sqlite: bool,
    ) -> None:
        self._driver: Any = connection.dbapi_connection
        self._info = connection.info  # lives as long as the driver's connection
        self._opened = opened
        self._statements = opened.statements
        self._is_sqlite = is_sqlite
        self._reader = opened.reader

    def begin(self, shown_url: str, *, writes: bool) -> None:
        """Read the counters; for a write that takes the ledger's lock as well."""
        counters = self._execute(
            self._statements.lock_meta if writes else self._statements.read_meta
        ).fetchone()
        if counters is None:
            message = f"ledger_url: {shown_url} {schema.NO_VERSION}"
            raise LedgerUnavailable(message, field="ledger_url", ledger_url=shown_url)
        schema_version, self.version, self._token = counters
        schema.check_schema(
            schema_version, shown_url
        )  # another process may have migrated it since
        self._writes = writes
        self._counters_read = (self.version, self._token)

    def commit(self) -> None:
        """End the transaction and keep what it has done, the counters too if they have
        moved.
        """
        if (self.version, self._token) != self._counters_read:
            self._execute(
                self._statements.write_meta, version=self.version, token=self._token
            )
        self._driver.commit()
        if self._writes:
            self._info[_OWN_WRITES] = self._info.get(_OWN_WRITES, 0) + 1

    def picture(self, host: str) -> CachedSnapshot:
        """The picture of a host to be filled or, as long as nothing at all has been
        written since, read.
        """
        if not self._is_sqlite:
            return CachedSnapshot((0, 0))
        # SQLite counts for each connection what any other connection has committed,
        # whichever process it belongs to.
        data_version = int(self._driver.execute("PRAGMA data_version").fetchone()[0])
        stamp = (data_version, self._info.get(_OWN_WRITES, 0))
        pictures = self._info.setdefault(_PICTURES, {})
        if host not in pictures or pictures[host].stamp != stamp:
            pictures[host] = CachedSnapshot(stamp)
        picture: CachedSnapshot = pictures[host]
        return picture

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def is_any_due(self, now: float) -> bool:
        return (
            self._execute(self._statements.is_any_due, now=now).fetchone() is not None
        )

    def due(self, now: float) -> list[Lease]:
        return [
            self._reader.lease(row)
            for row in self._select(self._statements.due, now=now)
        ]

    def lease(self, lease_id: str) -> Lease | None:
        return next(
            (
                self._reader.lease(row)
                for row in self._select(self._statements.lease, key=lease_id)
            ),
            None,
        )

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        if live:
            live_leases = self._live() if host is None else self._live_of(host)
            return sorted(live_leases, key=lambda lease: lease.token, reverse=True)[
                :limit
            ]
        if host is None:
            rows = self._select(self._statements.leases, at_most=limit)
        else:
            rows = self._select(
                self._statements.leases_of_host, at_most=limit, of_host=host
            )
        return [self._reader.lease(row) for row in rows]

    def _live(self) -> list[Lease]:
        return [self._reader.lease(row) for row in self._select(self._statements.live)]

    def _live_of(self, host: str) -> list[Lease]:
        def load(tokens: list[int]) -> dict[int, Lease]:
            if len(tokens) > _FEW:
                rows = self._select(self._statements.live_of_host, of_host=host)
            else:
                rows = (
                    row
                    for key in tokens
                    for row in self._select(self._statements.lease_of_token, key=key)
                )
            return {row["token"]: self._reader.lease(row) for row in rows}

        traits = self._execute(self._statements.live_traits, of_host=host).fetchall()
        return self._opened.leases.decoded(host, traits, load)

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        row = codec.lease_to_row(lease)
        if is_new:
            self._execute(self._statements.insert_lease, **row)
        else:
            self._execute(self._statements.update_lease, **row, key=lease.token)

    def request(self, request_id: str) -> Request | None:
        rows = self._select(self._statements.request, key=request_id)
        return next(iter(self._requests(rows)), None)

    def requests_of_key(self, key: str) -> list[Request]:
        rows = self._select(
            self._statements.requests_of_key, of_key=codec.storable(key)
        )
        return self._requests(rows)

    def queued(self, host: str) -> list[Request]:
        def load(ids: list[str]) -> dict[str, Request]:
            if len(ids) > _FEW:
                rows = self._select(self._statements.queued, of_host=host)
            else:
                rows = (
                    row
                    for key in ids
                    for row in self._select(self._statements.request, key=key)
                )
            return {request.id: request for request in self._requests(rows)}

        traits = self._execute(self._statements.queued_traits, of_host=host).fetchall()
        return self._opened.queued.decoded(host, traits, load)

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        row = codec.request_to_row(request)
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

    def append(self, event: Event) -> Event:
        written = self._execute(
            self._statements.insert_event, **codec.event_to_row(event)
        )
        return replace(
            event,
            sequence=written.lastrowid if self._is_sqlite else written.fetchone()[0],
        )

    def events(self, after: int, limit: int) -> list[Event]:
        rows = self._select(self._statements.events, after=after, at_most=limit)
        return self._reader.readable("event", rows, codec.event_from_row)

    def _requests(self, rows: Iterable[Mapping[str, Any]]) -> list[Request]:
        return self._reader.readable("request", rows, codec.request_from_row)

    def _reservations(self, rows: Iterable[Mapping[str, Any]]) -> list[Reservation]:
        read = codec.reservation_from_row
        return self._reader.readable("reservation", rows, read)

    def _select(
        self, statement: Statement, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        return map(statement.mapping, self._execute(statement, **parameters).fetchall())

    def _execute(self, statement: Statement, **parameters: object) -> Any:
        return self._driver.execute(
            statement.text, {**statement.defaults, **parameters}
        )
