"""The transactions in which a ledger is read and changed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from jupyter_aistack.exceptions import InvalidTransition, LeaseError

from .base import Ledger
from .lease_end import expire_due
from .rows import Rows

REFUSALS = (LeaseError, InvalidTransition)
"""Errors raised before a write has changed anything; the expiries that came first in
its transaction are kept.
"""

LARGEST = 2**63 - 1
"""The largest number that every database keeps."""


class Transactions(Ledger):
    """The port over two kinds of transactions, which a medium provides."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Rows]:
        """A transaction that sees one moment and changes nothing."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Rows]:
        """A transaction that no other write runs beside. Kept on success and on
        `REFUSALS`, undone on other errors.
        """

    @contextmanager
    def _seeing(self, now: float, *, leases: Iterable[str] = ()) -> Iterator[Rows]:
        """A reading transaction in which no lease lives past the end its user asked for.

        Those that do are ended for real first, not merely hidden: a plan may count on
        their slices.

        Args:
            leases: ids of those that will be looked up.
        """
        with self._reading() as rows:
            rows.expect(due_at=now, leases=leases)
            if not rows.is_any_due(now):
                yield rows
                return
        with self._changing(now, leases=leases) as rows:
            yield rows

    @contextmanager
    def _changing(
        self,
        now: float,
        *,
        leases: Iterable[str] = (),
        requests: Iterable[str] = (),
        named: Iterable[tuple[str, str]] = (),
    ) -> Iterator[Rows]:
        """A writing transaction, likewise.

        Args:
            leases, requests: ids of those that will be looked up.
            named: ids and idempotency keys of requests that will be looked up.
        """
        with self._writing() as rows:
            rows.expect(due_at=now, leases=leases, requests=requests, named=named)
            expire_due(rows, now, self.half_life_seconds)
            yield rows


def within(number: int) -> int:
    """The number, or the nearest number that a database keeps and a limit may be."""
    return min(max(number, 0), LARGEST)
