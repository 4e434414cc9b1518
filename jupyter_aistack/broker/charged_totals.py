"""Running counts of what was charged, for counters that only grow."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from jupyter_aistack.core.accounting.charges import UsageRecord


@dataclass(frozen=True, kw_only=True)
class ChargedTotals:
    """A running count of what was charged.

    Attributes:
        user: to whom; empty for the system.
        lease_id: for which lease; empty for all that have ended.
        millijoules: energy, where any of it was known; None where none was.
        estimated_millijoules: of it, what is an estimate.
        gpu_seconds: share of GPUs times time.
    """

    user: str
    lease_id: str = ""
    millijoules: int | None = None
    estimated_millijoules: int = 0
    gpu_seconds: float = 0.0


def with_records(
    before: Mapping[str, ChargedTotals],
    records: Iterable[UsageRecord],
    live: Container[str],
) -> dict[str, ChargedTotals]:
    """The counts with more records; a lease that has ended is counted with its user, so
    that counts stay few.

    Args:
        before: by lease, and of those that have ended by user.
        records: what was charged since; the CPU's are not counted.
        live: the ids of the live leases.
    """
    totals = dict(before)
    for record in records:
        if record.kind != "cpu":
            _add(totals, _totals_of(record))
    for name, total in list(totals.items()):
        if total.lease_id and total.lease_id not in live:
            del totals[name]
            _add(totals, replace(total, lease_id=""))
    return totals


def _totals_of(record: UsageRecord) -> ChargedTotals:
    return ChargedTotals(
        user=record.user,
        lease_id=record.lease_id,
        millijoules=record.millijoules if _is_charged(record) else None,
        estimated_millijoules=record.estimated_millijoules,
        gpu_seconds=record.share_seconds if record.lease_id else 0.0,
    )


def _is_charged(record: UsageRecord) -> bool:
    """Whether energy is charged, be it the idle part alone."""
    return record.metered_seconds > 0 or record.millijoules > 0


def _add(totals: dict[str, ChargedTotals], more: ChargedTotals) -> None:
    name = more.lease_id or f"user:{more.user}"
    known = totals.get(name)
    if known is None:
        totals[name] = more
        return
    parts = [part for part in (known.millijoules, more.millijoules) if part is not None]
    totals[name] = replace(
        known,
        millijoules=sum(parts) if parts else None,
        estimated_millijoules=known.estimated_millijoules + more.estimated_millijoules,
        gpu_seconds=known.gpu_seconds + more.gpu_seconds,
    )
