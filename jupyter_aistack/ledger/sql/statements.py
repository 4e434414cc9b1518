"""Every statement the ledger sends, written once in SQLAlchemy and compiled once for each
database.

They go to the driver as text: building and unpacking each through SQLAlchemy's layers
would take ten times as long as
SQLite takes to carry it out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.model.request import RequestState

from . import codec, schema
from .compiled import Compiler
from .history_statements import HistoryStatements

_L = schema.leases.c
_R = schema.requests.c
_M = schema.meta.c
_A = schema.accounts.c
_H = schema.hosts.c
_F = schema.device_faults.c
_HR = schema.host_reports.c
_V = schema.reservations.c
_T = schema.meters.c
_C = schema.charges.c
_S = schema.cells.c
_OF_HOST = sa.bindparam("of_host", type_=sa.Text())
_LIMIT = sa.bindparam("at_most", type_=sa.BigInteger())
# Not "due_at IS NOT NULL": that would have SQLite look at every lease there has ever
# been.
_IS_LIVE = _L.due_at >= sa.bindparam("least", float("-inf"), type_=sa.Double())
_IS_DUE = _L.due_at <= sa.bindparam("now", type_=sa.Double())
_IS_WAITING = _R.state == RequestState.QUEUED.value
_IS_QUEUED = sa.and_(_IS_WAITING, _R.host == _OF_HOST)


_by_dialect: dict[tuple[str, str], Statements] = {}


def statements_for(dialect: sa.Dialect) -> Statements:
    """The statements in a dialect, compiled at its first use in this process: that
    takes longer than all else in opening a ledger.
    """
    key = (dialect.name, dialect.paramstyle)
    if key not in _by_dialect:
        _by_dialect[key] = Statements(dialect)
    return _by_dialect[key]


class Statements:
    """All of them, in the dialect of a database.

    Args:
        dialect: whose parameters are named (``paramstyle`` ``named`` or ``pyformat``).
    """

    def __init__(self, dialect: sa.Dialect) -> None:
        compiler = Compiler(dialect)
        self._query = compiler.query
        self._change = compiler.change
        self._add_meta()
        self._add_leases()
        self._add_requests()
        self._add_hosts()
        self._add_host_reports()
        self._add_device_faults()
        self._add_accounts()
        self._add_reservations()
        self._add_meters()
        self._add_charges()
        self._add_cells()
        self.history = HistoryStatements(compiler)

    def _add_meta(self) -> None:
        counters = ("version", "token", "event_sequence", "event_digest", "drains")
        meta = sa.select(_M.schema_version, *(_M[name] for name in counters))
        self.read_meta = self._query(meta)
        # SQLite has no such clause and needs none: there a write transaction locks.
        self.lock_meta = self._query(meta.with_for_update())
        self.write_meta = self._change(schema.meta.update(), counters)
        # PostgreSQL's: the same as long as no transaction has written anything. One
        # that is started again, or has taken over, may give numbers away once more.
        snapshot = sa.cast(sa.func.txid_current_snapshot(), sa.Text).label("snapshot")
        started = sa.func.extract("epoch", sa.func.pg_postmaster_start_time())
        since = sa.cast(started, sa.Text).label("started")
        stamp: list[Any] = [snapshot, since]
        self.stamp = self._query(sa.select(*stamp))

    def _add_leases(self) -> None:
        next_due = sa.func.min(_L.due_at).label("next_due")
        self.next_due = self._query(sa.select(next_due).where(_IS_LIVE))
        self.due = self._query(sa.select(schema.leases).where(_IS_DUE))
        self.lease = self._query(
            sa.select(schema.leases).where(_L.id == sa.bindparam("key"))
        )
        self.lease_of_token = self._query(
            sa.select(schema.leases).where(_L.token == sa.bindparam("key"))
        )
        self.live = self._query(sa.select(schema.leases).where(_IS_LIVE))
        self.live_of_host = self._query(
            sa.select(schema.leases).where(_IS_LIVE, _L.host == _OF_HOST)
        )
        newest = sa.select(schema.leases).order_by(_L.token.desc()).limit(_LIMIT)
        self.leases = self._query(newest)
        self.leases_of_host = self._query(newest.where(_L.host == _OF_HOST))
        self.live_traits = self._query(
            sa.select(*_but(schema.leases, codec.FIXED_OF_LEASE)).where(_IS_LIVE)
        )
        self.insert_lease = self._change(schema.leases.insert(), schema.leases.c.keys())
        self.update_lease = self._change(
            schema.leases.update().where(_L.token == sa.bindparam("key")),
            schema.leases.c.keys(),
        )

    def _add_requests(self) -> None:
        self.request = self._query(
            sa.select(schema.requests).where(_R.id == sa.bindparam("key"))
        )
        is_of_key = _R.idempotency_key == _of("key")
        is_named = sa.or_(_R.id == sa.bindparam("key"), is_of_key)
        self.requests_named = self._query(sa.select(schema.requests).where(is_named))
        self.queued = self._query(sa.select(schema.requests).where(_IS_QUEUED))
        self.all_queued = self._query(sa.select(schema.requests).where(_IS_WAITING))
        self.queued_traits = self._query(
            sa.select(*_but(schema.requests, codec.FIXED_OF_QUEUED)).where(_IS_WAITING)
        )
        self.insert_request = self._change(
            schema.requests.insert(), schema.requests.c.keys()
        )
        self.update_request = self._change(
            schema.requests.update().where(_R.id == sa.bindparam("key")),
            schema.requests.c.keys(),
        )

    def _add_hosts(self) -> None:
        self.hosts = self._query(sa.select(schema.hosts))
        self.insert_host = self._change(schema.hosts.insert(), schema.hosts.c.keys())
        self.update_host = self._change(
            schema.hosts.update().where(_is_key(_H, ("id", "name"))),
            schema.hosts.c.keys(),
        )
        self.delete_host = self._change(
            schema.hosts.delete().where(_H.id == sa.bindparam("key")), ()
        )

    def _add_host_reports(self) -> None:
        is_report = _is_key(_HR, ("host", "allowance"))
        reports = schema.host_reports
        self.host_reports = self._query(sa.select(reports))
        self.insert_host_report = self._change(reports.insert(), reports.c.keys())
        self.update_host_report = self._change(
            reports.update().where(is_report), reports.c.keys()
        )
        self.delete_host_reports = self._change(
            reports.delete().where(_HR.host == _OF_HOST), ()
        )

    def _add_device_faults(self) -> None:
        self.device_faults = self._query(
            sa.select(schema.device_faults).where(_F.host == _OF_HOST)
        )
        self.insert_device_fault = self._change(
            schema.device_faults.insert(), schema.device_faults.c.keys()
        )
        self.delete_device_faults = self._change(
            schema.device_faults.delete().where(_is_key(_F, ("host", "device_id"))), ()
        )

    def _add_accounts(self) -> None:
        of_account = sa.and_(
            _A.user == sa.bindparam("of_user"), _A.queue == sa.bindparam("of_queue")
        )
        self.accounts = self._query(sa.select(schema.accounts))
        self.account = self._query(sa.select(schema.accounts).where(of_account))
        self.insert_account = self._change(
            schema.accounts.insert(), schema.accounts.c.keys()
        )
        self.update_account = self._change(
            schema.accounts.update().where(of_account), schema.accounts.c.keys()
        )

    def _add_reservations(self) -> None:
        is_reservation = _V.id == sa.bindparam("key")
        is_to_come = sa.or_(
            _V.is_weekly, _V.ends_at > sa.bindparam("now", type_=sa.Double())
        )
        self.reservation = self._query(
            sa.select(schema.reservations).where(is_reservation)
        )
        self.reservations = self._query(
            sa.select(schema.reservations).where(_V.host == _OF_HOST, is_to_come)
        )
        self.insert_reservation = self._change(
            schema.reservations.insert(), schema.reservations.c.keys()
        )
        self.delete_reservation = self._change(
            schema.reservations.delete().where(is_reservation), ()
        )

    def _add_meters(self) -> None:
        is_meter = sa.and_(
            _T.host == _OF_HOST, _T.device_id == sa.bindparam("of_device")
        )
        self.meters = self._query(sa.select(schema.meters).where(_T.host == _OF_HOST))
        self.insert_meter = self._change(schema.meters.insert(), schema.meters.c.keys())
        self.update_meter = self._change(
            schema.meters.update().where(is_meter), schema.meters.c.keys()
        )

    def _add_charges(self) -> None:
        is_charge = _is_key(_C, ("host", "device_id", "lease_id", "cell", "day"))
        is_within = sa.and_(
            _C.day >= sa.bindparam("since"), _C.day <= sa.bindparam("until")
        )
        self.charge = self._query(sa.select(schema.charges).where(is_charge))
        # One statement for each question: with "or :user is null" no index would be of
        # use.
        self.charges = {
            asked: self._query(
                sa.select(schema.charges).where(
                    is_within, *(_C[name] == _of(name) for name in asked)
                )
            )
            for size in range(4)
            for asked in itertools.combinations(("user", "label", "owner"), size)
        }
        is_old = sa.and_(_C.cell != "", _C.day < sa.bindparam("before"))
        self.old_cells = self._query(
            sa.select(schema.charges).where(is_old).limit(_LIMIT)
        )
        self.insert_charge = self._change(
            schema.charges.insert(), schema.charges.c.keys()
        )
        self.update_charge = self._change(
            schema.charges.update().where(is_charge), schema.charges.c.keys()
        )
        self.delete_charge = self._change(schema.charges.delete().where(is_charge), ())

    def _add_cells(self) -> None:
        is_span = _is_key(_S, ("host", "user", "owner", "cell", "began_at"))
        is_later = sa.or_(_S.ended_at.is_(None), _S.ended_at > sa.bindparam("since"))
        is_forgotten = sa.or_(
            _S.ended_at < sa.bindparam("ended_before"),
            sa.and_(_S.ended_at.is_(None), _S.began_at < sa.bindparam("begun_before")),
        )
        self.span = self._query(sa.select(schema.cells).where(is_span))
        self.spans = self._query(
            sa.select(schema.cells).where(_S.host == _OF_HOST, is_later)
        )
        self.insert_span = self._change(schema.cells.insert(), schema.cells.c.keys())
        self.update_span = self._change(
            schema.cells.update().where(is_span), schema.cells.c.keys()
        )
        self.delete_spans = self._change(
            schema.cells.delete().where(_S.host == _OF_HOST, is_forgotten), ()
        )


def _but(table: sa.Table, fixed: Collection[str]) -> list[sa.Column[Any]]:
    """The columns of a table but those that never change; the key comes first."""
    return [column for column in table.c if column.name not in fixed]


def _of(name: str) -> sa.BindParameter[Any]:
    """A parameter for the value looked for, apart from the value a column is set to."""
    return sa.bindparam(f"of_{name}")


def _is_key(columns: Any, names: Collection[str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(columns[name] == _of(name) for name in names))
