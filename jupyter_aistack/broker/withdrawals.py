"""What was begun for somebody who will never know of it: taken back at once, or as soon
as the ledger answers again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.lease import LeaseTransition
from jupyter_aistack.exceptions import AIStackError, InvalidTransition, LeaseError

from .host_state import HostState

UNANSWERED = "it could not be answered"
MOST_KEYS = 1000
"""So many keys are remembered as taken back; a call that is overtaken by its own
withdrawal is seconds old."""


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

    def withdraw(self, request_id: str, why: str = UNANSWERED) -> None:
        """Take a request back, or end the lease it has become as failed."""
        self._add(request_id, lambda: self._end_request(request_id, why))

    def withdraw_key(self, user: str, key: str) -> None:
        """As `withdraw`, for what a user has asked for under an idempotency key, or is
        asking for in another call that has not got so far.
        """
        with self._lock:
            self._keys[user, key] = None
            while len(self._keys) > MOST_KEYS:
                self._keys.popitem(last=False)
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
