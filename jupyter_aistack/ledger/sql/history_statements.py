"""Statements about what has happened, and about what leaves the ledger for files."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.model.archive import RecordKind
from jupyter_aistack.core.model.request import RequestState

from . import schema
from .compiled import Compiler, Statement

CELL_KEY = ("host", "device_id", "lease_id", "cell", "day")
"""What names the charge of a cell."""

_L = schema.leases.c
_R = schema.requests.c
_C = schema.charges.c
_E = schema.events.c
_P = schema.archives.c
_M = schema.meta.c
_KEY: sa.BindParameter[Any] = sa.bindparam("key")
_LIMIT = sa.bindparam("at_most", type_=sa.BigInteger())
_BEFORE: sa.BindParameter[float] = sa.bindparam("before", type_=sa.Double())


class HistoryStatements:
    """All of them.

    Args:
        compiler: of the dialect of a database.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._add_events()
        self.old_keys = self._old_keys()
        self._add_rows()
        self._add_segments()

    def _add_events(self) -> None:
        query = self._compiler.query
        later = (
            sa.select(schema.events)
            .where(_E.sequence > sa.bindparam("after"))
            .order_by(_E.sequence)
            .limit(_LIMIT)
        )
        told = later.where(_E.at >= sa.bindparam("since", type_=sa.Double()))
        user: sa.BindParameter[str] = sa.bindparam("of_user")
        self._insert_events: dict[int, Statement] = {}
        self.events = query(later)
        self.told_events = query(told)
        self.told_events_of = query(
            told.where(sa.or_(_E.user == user, _E.owner == user))
        )
        self.chained_after = query(sa.select(_M.chained_after))

    def insert_events(self, count: int) -> Statement:
        """Appends so many events. The parameters of each have its number behind their
        names: ``kind_0``.
        """
        known = self._insert_events.get(count)
        if known is None:
            names = [column.name for column in _E]
            rows: list[dict[str, Any]] = [
                {name: sa.bindparam(f"{name}_{number}") for name in names}
                for number in range(count)
            ]
            insert = schema.events.insert().values(rows).inline()
            known = self._compiler.change(insert, None)
            self._insert_events[count] = known
        return known

    def _old_keys(self) -> dict[RecordKind, Statement]:
        query = self._compiler.query
        has_lease = sa.exists().where(_L.id == _R.lease_id)
        is_decided = _R.state != RequestState.QUEUED.value
        cell = sa.select(*(_C[name] for name in CELL_KEY))
        return {
            RecordKind.LEASES: query(
                sa.select(_L.token)
                .where(_L.ended_at < _BEFORE)
                .order_by(_L.ended_at)
                .limit(_LIMIT)
            ),
            RecordKind.REQUESTS: query(
                sa.select(_R.id)
                .where(_R.submitted_at < _BEFORE, is_decided, ~has_lease)
                .order_by(_R.submitted_at)
                .limit(_LIMIT)
            ),
            RecordKind.CELLS: query(
                cell.where(_C.cell != "", _C.day < sa.bindparam("day")).limit(_LIMIT)
            ),
            RecordKind.EVENTS: query(
                sa.select(_E.sequence, _E.at).order_by(_E.sequence).limit(_LIMIT)
            ),
        }

    def _add_rows(self) -> None:
        query = self._compiler.query
        change = self._compiler.change
        is_lease = _L.token == _KEY
        is_request = _R.id == _KEY
        is_event = _E.sequence == _KEY
        self.kept_row = {
            RecordKind.LEASES: query(sa.select(schema.leases).where(is_lease)),
            RecordKind.REQUESTS: query(sa.select(schema.requests).where(is_request)),
            RecordKind.EVENTS: query(sa.select(schema.events).where(is_event)),
        }
        self.delete_row = {
            RecordKind.LEASES: change(schema.leases.delete().where(is_lease), ()),
            RecordKind.REQUESTS: change(schema.requests.delete().where(is_request), ()),
            RecordKind.EVENTS: change(schema.events.delete().where(is_event), ()),
        }

    def _add_segments(self) -> None:
        columns = schema.archives.c.keys()
        self.segments = self._compiler.query(
            sa.select(schema.archives).order_by(_P.number)
        )
        self.insert_segment = self._compiler.change(schema.archives.insert(), columns)
        self.update_segment = self._compiler.change(
            schema.archives.update().where(_P.number == sa.bindparam("of_number")),
            columns,
        )
