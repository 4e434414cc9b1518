"""The events of a ledger in a database, as one transaction sees and writes them."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.ledger.audit_trail import sealed

from . import codec
from .transaction import SQLTransaction


class HistoryRows(SQLTransaction):
    """The table of events."""

    def append(self, event: Event) -> None:
        row, self.chain_end = sealed(event, self.chain_end, codec.event_to_row)
        self._execute(self._statements.insert_event, **row)

    def events(self, after: int, limit: int) -> list[Event]:
        rows = self._select(self._statements.events, after=after, at_most=limit)
        return self._reader.readable("event", rows, codec.event_from_row)

    def event_rows(self, after: int, limit: int) -> list[Mapping[str, object]]:
        return list(self._select(self._statements.events, after=after, at_most=limit))

    def chained_after(self) -> int:
        return int(self._fetch(self._statements.chained_after)[0][0])
