"""Queues, and who of the waiting goes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from .request import Request

DEFAULT_QUEUE = "default"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """An ordering domain.

    Attributes:
        name: what `Request.queue` names.
        limit: most device equivalents its leases may hold at once; None for no limit.
        priority: queues of higher priority go first.
        is_open: whether it takes requests.
    """

    name: str
    limit: Fraction | None = None
    priority: int = 0
    is_open: bool = True


def in_order(requests: Iterable[Request], queues: Iterable[Queue]) -> list[Request]:
    """The waiting requests, first served first: by queue priority, own priority, then arrival."""
    rank = {queue.name: queue.priority for queue in queues}
    return sorted(requests, key=lambda r: (-rank.get(r.queue, 0), -r.priority, r.submitted_at, r.id))
