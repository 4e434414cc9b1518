"""What several threads ask for at once is done at once, by one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Ticket(Generic[T]):
    """One call that waits to be done.

    Attributes:
        is_done: it has been.
        is_abandoned: whoever asked for it was interrupted, and will not hear of it.
    """

    call: T
    is_done: bool = False
    is_abandoned: bool = False


class Batches(Generic[T]):
    """Does calls in batches: each batch is all that was asked for while the one before
    was being done.

    A thread that asks while nobody works does the batch; the others wait for it, and do
    not hand the interpreter to one another at every step.

    Args:
        perform: does a batch, in the order it was asked for. What becomes of a call it
            notes in the call; what it raises, an interrupt, is of the asker who did the
            batch, and the calls of the others are done again.
        disown: told of a call that was done for an asker who was interrupted.
    """

    def __init__(
        self, perform: Callable[[Sequence[T]], None], disown: Callable[[T], None]
    ) -> None:
        self._perform = perform
        self._disown = disown
        self._changed = threading.Condition()
        self._waiting: list[_Ticket[T]] = []
        self._batch: list[_Ticket[T]] = []
        self._leader: _Ticket[T] | None = None

    def do(self, call: T) -> None:
        """Have a call done. It has been when this returns."""
        ticket = _Ticket(call)
        try:
            with self._changed:
                self._waiting.append(ticket)
            while self._is_to_lead(ticket):
                self._perform([each.call for each in self._batch])
                self._end_batch()
        except BaseException:
            self._abandon(ticket)
            raise

    def _is_to_lead(self, ticket: _Ticket[T]) -> bool:
        """Whether this thread is to do a batch, and not done itself; waits until it is
        known.
        """
        with self._changed:
            while self._leader is not None and not ticket.is_done:
                self._changed.wait()
            if ticket.is_done:
                return False
            self._batch = self._waiting
            self._waiting = []
            self._leader = ticket
            return True

    def _end_batch(self) -> None:
        with self._changed:
            batch = self._batch
            for ticket in batch:
                ticket.is_done = True
            self._make_way()
        for ticket in batch:
            if ticket.is_abandoned:
                self._disown(ticket.call)

    def _abandon(self, ticket: _Ticket[T]) -> None:
        """Take a call back that nobody has begun; one that is being done is disowned.
        What its asker was doing for others is left to them.
        """
        with self._changed:
            ticket.is_abandoned = True
            if self._leader is ticket:
                self._waiting[:0] = self._batch
                self._make_way()
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def _make_way(self) -> None:
        self._batch = []
        self._leader = None
        self._changed.notify_all()
