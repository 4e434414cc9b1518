"""What was begun for somebody who will never know of it: taken back at once, or as soon
as the ledger answers again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.lease import LeaseTransition
from jupyter_aistack.exceptions import AIStackError, InvalidTransition, LeaseError
from jupyter_aistack.ledger.rows import refuse_ended

from .host_state import HostState

UNANSWERED = "it could not be answered"
MOST_KEYS = 10_000
"""So much is remembered as taken back, or as answered; a call that is overtaken by its
own withdrawal, or by another call's answer, is seconds old."""


Memory = TypeVar("Memory")


def _remember(known: OrderedDict[Memory, None], key: Memory) -> None:
    known[key] = None
    while len(known) > MOST_KEYS:
        known.popitem(last=False)


class Withdrawals:
    """Requests, leases and reservations that nobody knows of, and that must go.

    Each is noted before it is tried: neither a ledger that does not answer nor an
    interrupt makes it forgotten. What is left is tried again in every cycle.

    Args:
        host_state: where they are written down.
    """

    def __init__(self, host_state: HostState) -> None:
        self._host_state = host_state
        self._lock = threading.Lock()
        self._pending: dict[str, Callable[[], None]] = {}
        self._keys: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._tried: OrderedDict[str, None] = OrderedDict()
        self._settling = threading.RLock()

    def withdraw(self, request_id: str, why: str = UNANSWERED) -> None:
        """Take a request back, or end the lease it has become as failed; unless another
        call has answered it meanwhile.
        """

        def end() -> None:
            if request_id not in self._kept:
                self._end_request(request_id, why)

        self._add(request_id, end)

    def fail(self, request_id: str, why: str) -> None:
        """As `withdraw`, whoever was answered: nobody can use the lease."""
        self._add(request_id, lambda: self._end_request(request_id, why))

    def keep(self, request_id: str) -> None:
        """A request is answered after all, by another call of its key: it is not taken
        back, neither now nor by the call that could not answer it.

        What is being taken back in this moment is, before this returns.
        """
        with self._settling:
            self._pending.pop(request_id, None)
            _remember(self._kept, request_id)

    def answer(self, request_id: str) -> None:
        """A lease is about to be handed to its asker: no other call that could not
        answer takes it back any more.

        Raises:
            LeaseLost: one has, a moment before.
        """
        self.keep(request_id)
        if request_id in self._tried:
            request = self._host_state.request(request_id)
            refuse_ended(self._host_state.lease(request.lease_id))

    def revive(self, request_id: str) -> bool:
        """A request is asked about by somebody who knows it: what an earlier call could
        not answer is not taken back, unless a later one cannot either.

        Returns:
            Whether that was tried already: its lease may have ended.
        """
        with self._settling:
            self._pending.pop(request_id, None)
            return request_id in self._tried

    def withdraw_key(self, user: str, key: str) -> None:
        """As `withdraw`, for what a user has asked for under an idempotency key, or is
        asking for in another call that has not got so far. The user wants it no more:
        it goes though it was answered.
        """
        with self._lock:
            _remember(self._keys, (user, key))
        self._add(f"{user}\n{key}", lambda: self._end_key(user, key))

    def is_withdrawn(self, user: str, key: str) -> bool:
        """Whether `withdraw_key` was called for a user's key."""
        with self._lock:
            return (user, key) in self._keys

    def unreserve(self, reservation_id: str) -> None:
        """Cancel a reservation."""
        ledger = self._host_state.ledger

        def cancel() -> None:
            ledger.unreserve(reservation_id, self._host_state.now())

        self._add(reservation_id, cancel)

    def settle(self) -> None:
        """Try what is left; what fails for want of the ledger stays."""
        if not self._pending:
            return
        with self._settling:
            for name, action in tuple(self._pending.items()):
                try:
                    action()
                except (LeaseError, InvalidTransition):
                    pass  # nothing is there to be taken back
                except AIStackError:
                    continue
                self._pending.pop(name, None)

    def _add(self, name: str, action: Callable[[], None]) -> None:
        self._pending[name] = action
        self.settle()

    def _end_request(self, request_id: str, why: str) -> None:
        _remember(self._tried, request_id)
        state = self._host_state
        now = state.now()
        request = state.ledger.cancel(request_id, now, why)
        if not request.lease_id:
            return
        lease = state.lease(request.lease_id)
        if not lease.is_live:
            return
        failed = new_condition(ConditionKind.FAILED, why, now)
        ended = state.ledger.step(
            lease.id,
            lease.token,
            LeaseTransition.FAIL,
            now,
            conditions=ConditionUpdate(put=(failed,)),
        )
        state.devices.unprepare(ended)

    def _end_key(self, user: str, key: str) -> None:
        request = self._host_state.ledger.request_of_key(user, key)
        if request is not None:
            self._end_request(request.id, UNANSWERED)
