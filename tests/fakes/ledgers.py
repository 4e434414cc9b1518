"""A ledger that fails when it is told to: before a transaction, or after it has been
kept, as a database does whose connection is lost while it commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.rows import Rows


def _lost() -> BaseException:
    return LedgerUnavailable("the ledger does not answer")


class FailingLedger(MemoryLedger):
    """A ledger in memory whose transactions can be made to fail.

    Attributes:
        is_down: every transaction fails.
        count: transactions so far.
        fail_at: the number of the transaction that fails; None for none.
        is_kept: that transaction fails only once it has been kept.
        stays_down: after it, every other transaction fails as well.
        error: what is raised then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.count = 0
        self.fail_at: int | None = None
        self.is_kept = False
        self.stays_down = False
        self.error: Callable[[], BaseException] = _lost

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._failing(), super()._reading() as rows:
            yield rows

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        with self._failing(), super()._writing() as rows:
            yield rows

    @contextmanager
    def _failing(self) -> Iterator[None]:
        if self.is_down:
            raise _lost()
        self.count += 1
        is_last = self.count == self.fail_at
        if is_last and not self.is_kept:
            self._fail()
        yield
        if is_last and self.is_kept:
            self._fail()

    def _fail(self) -> None:
        self.is_down = self.stays_down
        raise self.error()
