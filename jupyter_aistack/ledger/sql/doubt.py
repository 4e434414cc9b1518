"""Whether a server may still do what it was sent and has not answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class _Committing(Protocol):
    def commit(self) -> None: ...


class Doubt:
    """Commits whose answers were lost: a server that was stopped, or a network that was
    cut, may carry one out later, and until then shows what was before.

    Whoever commits has the ledger's lock, so whoever has had it since is in no doubt.
    """

    def __init__(self) -> None:
        self._arisen = 0
        self._settled = 0

    @property
    def is_open(self) -> bool:
        """Whether what is read now may be over in a moment, by this process's doing."""
        return self._settled < self._arisen

    def watching(
        self, transaction: _Committing, *, matters: bool
    ) -> Callable[[], None]:
        """How to commit a transaction that begins now.

        Args:
            matters: it takes the lock, and a server answers.
        """
        return self._watched(transaction) if matters else transaction.commit

    def _watched(self, transaction: _Committing) -> Callable[[], None]:
        arisen_before = self._arisen

        def commit() -> None:
            try:
                transaction.commit()
            except BaseException:
                self._arisen += 1
                raise
            self._settled = max(self._settled, arisen_before)

        return commit
