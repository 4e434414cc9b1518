"""The ledger in a database: one SQLite file, or PostgreSQL for many servers.

Every write transaction holds the ledger's one write lock from its first statement (SQLite:
``BEGIN IMMEDIATE``; PostgreSQL: the row of ``aistack_meta``), so writes happen one after another
and what a transaction has read stays true until it commits.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from ..core.accounts import Account
from ..core.events import Event
from ..core.lease import Lease
from ..core.request import Request, RequestState
from ..core.reservations import Reservation
from ..exceptions import LedgerUnavailable
from . import codec, engines, schema
from .rows import Rows
from .rules import REFUSALS, TransactionalLedger

_READ_META = sa.select(schema.meta.c.schema_version, schema.meta.c.version, schema.meta.c.token)
_LOCK_META = _READ_META.with_for_update()  # SQLite has no such clause and needs none
_WRITE_META = schema.meta.update().values(version=sa.bindparam("v"), token=sa.bindparam("t"))

_L, _R, _E = schema.leases.c, schema.requests.c, schema.events.c
_A, _V = schema.accounts.c, schema.reservations.c
_IS_DUE = _L.due_at <= sa.bindparam("now", type_=sa.Double())
_OF_HOST = _L.host == sa.bindparam("of_host", type_=sa.Text())
_LIMIT = sa.bindparam("at_most", type_=sa.BigInteger())
_IS_ANY_DUE = sa.select(_L.token).where(_IS_DUE).limit(1)
_DUE = sa.select(schema.leases).where(_IS_DUE)
_LEASE = sa.select(schema.leases).where(_L.id == sa.bindparam("key"))
_LEASES = sa.select(schema.leases).order_by(_L.token.desc()).limit(_LIMIT)
_LIVE = _LEASES.where(_L.due_at.is_not(None))
_LEASES_OF_HOST, _LIVE_OF_HOST = _LEASES.where(_OF_HOST), _LIVE.where(_OF_HOST)
_INSERT_LEASE = schema.leases.insert()
_UPDATE_LEASE = schema.leases.update().where(_L.token == sa.bindparam("key"))
_REQUEST = sa.select(schema.requests).where(_R.id == sa.bindparam("key"))
_QUEUED = sa.select(schema.requests).where(_R.state == RequestState.QUEUED.value, _R.host == sa.bindparam("of_host"))
_INSERT_REQUEST = schema.requests.insert()
_UPDATE_REQUEST = schema.requests.update().where(_R.id == sa.bindparam("key"))
_ACCOUNTS = sa.select(schema.accounts)
_OF_ACCOUNT = sa.and_(_A.user == sa.bindparam("of_user"), _A.queue == sa.bindparam("of_queue"))
_ACCOUNT = _ACCOUNTS.where(_OF_ACCOUNT)
_INSERT_ACCOUNT, _UPDATE_ACCOUNT = schema.accounts.insert(), schema.accounts.update().where(_OF_ACCOUNT)
_IS_RESERVATION = _V.id == sa.bindparam("key")
_RESERVATION = sa.select(schema.reservations).where(_IS_RESERVATION)
_IS_TO_COME = sa.or_(_V.is_weekly, _V.ends_at > sa.bindparam("now", type_=sa.Double()))
_RESERVATIONS = sa.select(schema.reservations).where(_V.host == sa.bindparam("of_host"), _IS_TO_COME)
_INSERT_RESERVATION = schema.reservations.insert()
_DELETE_RESERVATION = schema.reservations.delete().where(_IS_RESERVATION)
_INSERT_EVENT = schema.events.insert()
_EVENTS = sa.select(schema.events).where(_E.sequence > sa.bindparam("after")).order_by(_E.sequence).limit(_LIMIT)


_open_ledgers: weakref.WeakSet[SQLLedger] = weakref.WeakSet()


class SQLLedger(TransactionalLedger):
    """A ledger at an SQLAlchemy URL: ``sqlite:///path`` or ``postgresql+psycopg://user@server/database``.

    Nothing is opened, created or migrated before the first call; a call that fails leaves the next one free to
    succeed. Safe across threads, and across processes, those forked from this one included.

    Raises:
        LedgerUnavailable: at once when the URL is not one of these; later from any method.
    """

    def __init__(self, url: str) -> None:
        self._url = engines.parse_url(url)
        self.shown_url = engines.without_secrets(self._url)
        """The URL without its password, for people."""
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._opened_as: engines.Identity = (0, 0, 0)

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with engines.explained(self._url), self._open().connect() as connection, connection.begin():
            yield self._rows(connection, _READ_META)

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        writer = self._open().execution_options(**engines.WRITES)
        with engines.explained(self._url), writer.connect() as connection, connection.begin() as transaction:
            rows = self._rows(connection, _LOCK_META)
            try:
                yield rows
            except REFUSALS:
                rows.flush()
                transaction.commit()
                raise
            rows.flush()

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _rows(self, connection: sa.Connection, read_meta: sa.Select[Any]) -> _SQLRows:
        found = connection.execute(read_meta).one_or_none()
        if found is None:
            message = f"ledger_url: {self.shown_url} {schema.NO_VERSION}"
            raise LedgerUnavailable(message, field="ledger_url", ledger_url=self.shown_url)
        schema.check_schema(found.schema_version, self.shown_url)  # another process may have migrated it since
        return _SQLRows(connection, found.version, found.token)

    def _open(self) -> sa.Engine:
        identity = engines.identity(self._url)
        engine = self._engine
        if engine is not None and self._opened_as == identity:
            return engine
        with self._lock:
            if self._opened_as != identity:
                self._forget()
            if self._engine is None:
                self._engine = self._create()
                _open_ledgers.add(self)
                self._opened_as = engines.identity(self._url)
            return self._engine

    def _forget(self) -> None:
        if self._engine is not None:
            # What was in use during a fork is the parent's: closing it here would break it there.
            self._engine.dispose(close=self._opened_as[0] == os.getpid())
        self._engine = None

    def _create(self) -> sa.Engine:
        with engines.explained(self._url):
            engine = engines.create(self._url)
            with engine.execution_options(**engines.WRITES).connect() as connection, connection.begin():
                schema.bring_up_to_date(connection, self.shown_url)
        return engine


def _close_before_fork() -> None:
    # SQLite's locks do not cross a fork, but what a child inherits would make it believe that it holds them.
    for ledger in list(_open_ledgers):
        ledger.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_before_fork)


class _SQLRows:
    """The tables, as one transaction sees them."""

    def __init__(self, connection: sa.Connection, version: int, token: int) -> None:
        self._connection = connection
        self._found = (version, token)
        self.version, self._token = version, token

    def flush(self) -> None:
        """Write the counters back, if they have moved."""
        if (self.version, self._token) != self._found:
            self._connection.execute(_WRITE_META, {"v": self.version, "t": self._token})

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def is_any_due(self, now: float) -> bool:
        return self._connection.execute(_IS_ANY_DUE, {"now": now}).first() is not None

    def due(self, now: float) -> list[Lease]:
        return [codec.lease_from_row(row) for row in self._select(_DUE, now=now)]

    def lease(self, lease_id: str) -> Lease | None:
        return next((codec.lease_from_row(row) for row in self._select(_LEASE, key=lease_id)), None)

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        if host is None:
            found = self._select(_LIVE if live else _LEASES, at_most=limit)
        else:
            found = self._select(_LIVE_OF_HOST if live else _LEASES_OF_HOST, at_most=limit, of_host=host)
        return [codec.lease_from_row(row) for row in found]

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        row = codec.lease_to_row(lease)
        if is_new:
            self._connection.execute(_INSERT_LEASE, row)
        else:
            self._connection.execute(_UPDATE_LEASE, row | {"key": lease.token})

    def request(self, request_id: str) -> Request | None:
        return next((codec.request_from_row(row) for row in self._select(_REQUEST, key=request_id)), None)

    def queued(self, host: str) -> list[Request]:
        return [codec.request_from_row(row) for row in self._select(_QUEUED, of_host=host)]

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        row = codec.request_to_row(request)
        if is_new:
            self._connection.execute(_INSERT_REQUEST, row)
        else:
            self._connection.execute(_UPDATE_REQUEST, row | {"key": request.id})

    def accounts(self) -> list[Account]:
        return [codec.account_from_row(row) for row in self._select(_ACCOUNTS)]

    def account(self, user: str, queue: str) -> Account | None:
        found = self._select(_ACCOUNT, of_user=codec.storable(user), of_queue=queue)
        return next((codec.account_from_row(row) for row in found), None)

    def keep_account(self, account: Account, *, is_new: bool = False) -> None:
        row = codec.account_to_row(account)
        if is_new:
            self._connection.execute(_INSERT_ACCOUNT, row)
        else:
            self._connection.execute(_UPDATE_ACCOUNT, row | {"of_user": row["user"], "of_queue": row["queue"]})

    def reservation(self, reservation_id: str) -> Reservation | None:
        found = self._select(_RESERVATION, key=reservation_id)
        return next((codec.reservation_from_row(row) for row in found), None)

    def reservations(self, host: str, now: float) -> list[Reservation]:
        return [codec.reservation_from_row(row) for row in self._select(_RESERVATIONS, of_host=host, now=now)]

    def add_reservation(self, reservation: Reservation) -> None:
        self._connection.execute(_INSERT_RESERVATION, codec.reservation_to_row(reservation))

    def remove_reservation(self, reservation_id: str) -> None:
        self._connection.execute(_DELETE_RESERVATION, {"key": reservation_id})

    def append(self, event: Event) -> Event:
        written = self._connection.execute(_INSERT_EVENT, codec.event_to_row(event))
        key = written.inserted_primary_key
        return replace(event, sequence=key[0] if key else 0)

    def events(self, after: int, limit: int) -> list[Event]:
        return [codec.event_from_row(row) for row in self._select(_EVENTS, after=after, at_most=limit)]

    def _select(self, query: sa.Select[Any], **parameters: object) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Any] = self._connection.execute(query, parameters).mappings().all()
        return rows
