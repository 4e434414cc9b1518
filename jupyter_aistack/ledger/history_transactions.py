"""What a ledger tells of its events, over the transactions of a medium."""

from __future__ import annotations

from jupyter_aistack.core.audit.chain import Row
from jupyter_aistack.core.model.events import Event

from .history import ChainEnds
from .transactions import Transactions, within


class HistoryTransactions(Transactions):
    """The part of the port that tells what has happened."""

    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        with self._reading() as rows:
            return tuple(rows.events(within(after), within(limit)))

    def record(self, event: Event) -> None:
        with self._changing(event.at) as rows:
            rows.append(event)

    def event_rows(self, after: int = 0, limit: int = 1000) -> tuple[Row, ...]:
        with self._reading() as rows:
            return tuple(rows.event_rows(within(after), within(limit)))

    def chain_ends(self) -> ChainEnds:
        with self._reading() as rows:
            return ChainEnds(chained_after=rows.chained_after(), end=rows.chain_end)
