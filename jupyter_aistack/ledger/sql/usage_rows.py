"""The tables of what was used, as one transaction sees and changes them."""

from __future__ import annotations

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
)

from . import codec
from .transaction import SQLTransaction


class UsageRows(SQLTransaction):
    """Meters, charges and spans of cells."""

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
