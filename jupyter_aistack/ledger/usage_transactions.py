"""What a ledger keeps of energy and use: meters, usage records and when cells ran."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    MeterState,
    UsageRecord,
    UsageSummary,
)

from . import accounting
from .transactions import Transactions, within


class UsageTransactions(Transactions):
    """The part of the port that meters write to and reports read from."""

    def meters(self, host: str) -> tuple[MeterState, ...]:
        with self._reading() as rows:
            return tuple(sorted(rows.meters(host), key=attrgetter("device_id")))

    def settle(self, bill: UsageSummary) -> None:
        with self._writing() as rows:
            accounting.settle(rows, bill)

    def charges(
        self,
        since: int,
        until: int,
        *,
        user: str | None = None,
        label: str | None = None,
        owner: str | None = None,
    ) -> tuple[UsageRecord, ...]:
        with self._reading() as rows:
            records = rows.charges(since, until, user=user, label=label, owner=owner)
        return tuple(sorted(records, key=attrgetter("key")))

    def aggregate_cells(self, before: int, limit: int = 1000) -> int:
        with self._writing() as rows:
            return accounting.fold(rows, before, within(limit))

    def record_cells(self, spans: Iterable[CellInterval]) -> None:
        noted = tuple(spans)
        if noted:
            with self._writing() as rows:
                accounting.note(rows, noted)

    def cells(self, host: str, since: float) -> tuple[CellInterval, ...]:
        with self._reading() as rows:
            return tuple(
                sorted(
                    rows.spans(host, since), key=attrgetter("began_at", "owner", "cell")
                )
            )

    def delete_cells(self, host: str, before: float) -> None:
        with self._writing() as rows:
            rows.remove_spans(host, before, before - accounting.LONGEST_CELL_SECONDS)
