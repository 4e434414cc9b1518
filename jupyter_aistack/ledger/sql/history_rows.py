"""The events of a ledger in a database, and what leaves it for files, as one transaction
sees and writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jupyter_aistack.core.accounting.charges import day_of
from jupyter_aistack.core.audit.chain import Row
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKey, RecordKind
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.ledger.audit_trail import old_beginning, sealed

from . import codec
from .history_statements import CELL_KEY
from .transaction import SQLTransaction

_TOGETHER = 32
"""So many events are sent in one statement."""


class HistoryRows(SQLTransaction):
    """The tables of events and of archives, and the old rows of others."""

    def append(self, event: Event) -> None:
        row, self.chain_end = sealed(event, self.chain_end, codec.event_to_row)
        self._written.events.append(row)

    def events(self, after: int, limit: int) -> list[Event]:
        rows = self.event_rows(after, limit)
        return self._reader.readable("event", rows, codec.event_from_row)

    def event_rows(self, after: int, limit: int) -> list[Row]:
        self._send_events()
        statement = self._statements.history.events
        return list(self._select(statement, after=after, at_most=limit))

    def told_events(
        self, after: int, limit: int, *, since: float, user: str | None
    ) -> list[Row]:
        page = {"after": after, "at_most": limit, "since": since}
        if user is None:
            return list(self._select(self._statements.history.told_events, **page))
        of_user = codec.storable(user)
        statement = self._statements.history.told_events_of
        return list(self._select(statement, **page, of_user=of_user))

    def chained_after(self) -> int:
        return int(self._fetch(self._statements.history.chained_after)[0][0])

    def _send_events(self) -> None:
        """Send the events that were appended, many in one statement."""
        unsent = self._written.events
        while unsent:
            rows = unsent[:_TOGETHER]
            del unsent[:_TOGETHER]
            values = {
                f"{name}_{number}": value
                for number, row in enumerate(rows)
                for name, value in row.items()
            }
            self._execute(self._statements.history.insert_events(len(rows)), **values)

    # -- what leaves -------------------------------------------------------------------

    def old_keys(
        self, kind: RecordKind, before: float, now: float, limit: int
    ) -> Sequence[RecordKey]:
        statement = self._statements.history.old_keys[kind]
        if kind is RecordKind.CELLS:
            day = day_of(before)
            cells = self._fetch(statement, day=day, at_most=limit)
            return [list(row) for row in cells]
        if kind is RecordKind.EVENTS:
            events = self._fetch(statement, at_most=limit)
            return old_beginning(events, before, now)
        return [row[0] for row in self._fetch(statement, before=before, at_most=limit)]

    def kept_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> list[Row]:
        if kind is RecordKind.CELLS:
            charge = self._statements.charge
            return [row for key in keys for row in self._select(charge, **_cell(key))]
        return list(
            self._select_each(self._statements.history.kept_row[kind], list(keys))
        )

    def remove_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> None:
        statement = self._statements.history.delete_row[kind]
        for key in keys:
            self._execute(statement, key=key)

    def segments(self) -> list[ArchiveSegment]:
        rows = self._select(self._statements.history.segments)
        return list(map(codec.segment_from_row, rows))

    def keep_segment(self, segment: ArchiveSegment, *, is_new: bool = False) -> None:
        row = codec.segment_to_row(segment)
        if is_new:
            self._execute(self._statements.history.insert_segment, **row)
        else:
            update = self._statements.history.update_segment
            self._execute(update, **row, of_number=segment.number)


def _cell(key: RecordKey) -> dict[str, Any]:
    assert not isinstance(key, str | int)
    return {f"of_{name}": part for name, part in zip(CELL_KEY, key, strict=True)}
