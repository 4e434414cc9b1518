"""How charges are written down: meters move on from where they were, and what is added
is never lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    UsageRecord,
    UsageSummary,
    added,
    summed,
)
from jupyter_aistack.exceptions import LedgerConflict

from .rows import Rows

LONGEST_CELL_SECONDS = 30 * 86400.0
"""A cell without an end that began earlier belongs to a kernel that died; its span is
dropped.
"""


def settle(rows: Rows, bill: UsageSummary) -> None:
    """Move the meters and add the charges.

    Raises:
        LedgerConflict: a meter is not where the bill goes on from; nothing was changed.
    """
    known = {
        (meter.host, meter.device_id): meter
        for host in _hosts(bill)
        for meter in rows.meters(host)
    }
    expected = {(meter.host, meter.device_id): meter for meter in bill.before}
    for meter in bill.after:
        place = (meter.host, meter.device_id)
        if known.get(place) != expected.get(place):
            raise LedgerConflict(
                f"the meter of {meter.device_id} was moved by another process",
                device_id=meter.device_id,
            )
    for meter in bill.after:
        rows.keep_meter(meter, is_new=(meter.host, meter.device_id) not in known)
    for charge in summed(bill.charges):
        add(rows, charge)


def _hosts(bill: UsageSummary) -> Iterable[str]:
    return dict.fromkeys(meter.host for meter in bill.after)


def add(rows: Rows, charge: UsageRecord) -> None:
    """Add a charge to what is under its key already."""
    known = rows.charge(charge.key)
    rows.keep_charge(
        charge if known is None else added(known, charge), is_new=known is None
    )


def fold(rows: Rows, before: int, limit: int) -> int:
    """Add old charges of cells to those of their leases, and drop them; how many."""
    old = rows.old_cells(before, limit)
    for charge in old:
        _fold(rows, charge)
    return len(old)


def fold_cell(rows: Rows, key: Key) -> None:
    """The same for the charge of one cell; one that is not there is left alone."""
    charge = rows.charge(key)
    if charge is not None:
        _fold(rows, charge)


def _fold(rows: Rows, charge: UsageRecord) -> None:
    add(rows, replace(charge, cell=""))
    rows.remove_charge(charge.key)


def note(rows: Rows, spans: Iterable[CellInterval]) -> None:
    """Keep the spans of cells, each once."""
    for span in spans:
        rows.keep_span(span, is_new=rows.span(span) is None)
