"""The events of a ledger in a database, as one transaction sees and writes them."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.ledger.audit_trail import sealed

from . import codec
from .transaction import SQLTransaction

_TOGETHER = 32
"""So many events are sent in one statement."""


class HistoryRows(SQLTransaction):
    """The table of events."""

    def append(self, event: Event) -> None:
        row, self.chain_end = sealed(event, self.chain_end, codec.event_to_row)
        self._written.events.append(row)

    def events(self, after: int, limit: int) -> list[Event]:
        return self._reader.readable(
            "event", self.event_rows(after, limit), codec.event_from_row
        )

    def event_rows(self, after: int, limit: int) -> list[Mapping[str, object]]:
        self._send_events()
        return list(self._select(self._statements.events, after=after, at_most=limit))

    def chained_after(self) -> int:
        return int(self._fetch(self._statements.chained_after)[0][0])

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
            self._execute(self._statements.insert_events(len(rows)), **values)
