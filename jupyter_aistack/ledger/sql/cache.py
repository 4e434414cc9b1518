"""What has been read before, so that a long queue is not decoded anew for each look at
it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Traits = tuple[Hashable, ...]
"""The columns of a row that may change, its key first. A row with the same traits is
the same row.
"""


class DecodeCache(Generic[T]):
    """Decoded rows, by host and traits. Threads may share it: what is known is replaced
    whole, never changed.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Traits, T]] = {}

    def decoded(
        self,
        host: str,
        rows: Sequence[Traits],
        load: Callable[[list[Any]], Mapping[Any, T]],
    ) -> list[T]:
        """The values of `rows`, in their order.

        Args:
            host: whose rows they are, and all of them: what is not among them is
                forgotten.
            rows: their traits, read in this transaction.
            load: reads and decodes the rows with these keys, in the same transaction;
                what it leaves out cannot be read.
        """
        known = self._known.get(host, {})
        cached = [known.get(row) for row in rows]
        missing = [
            row[0] for row, value in zip(rows, cached, strict=True) if value is None
        ]
        loaded = load(missing) if missing else {}
        decoded = {
            row: loaded.get(row[0]) if value is None else value
            for row, value in zip(rows, cached, strict=True)
        }
        values = {row: value for row, value in decoded.items() if value is not None}
        if missing or len(known) != len(values):
            self._known[host] = values
        return list(values.values())
