"""A ledger in this process's memory, for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..core.accounts import Account
from ..core.events import Event
from ..core.lease import Lease
from ..core.request import Request, RequestState
from ..core.reservations import Reservation
from .rows import Rows
from .rules import TransactionalLedger


class MemoryLedger(TransactionalLedger):
    """The ledger's twin without a file: the same contract, gone with the process."""

    def __init__(self) -> None:
        self._rows = _MemoryRows()
        self._lock = threading.Lock()

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._lock:
            yield self._rows

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        # Nothing needs undoing: the rules check first and change afterwards.
        with self._lock:
            yield self._rows

    def close(self) -> None:
        pass


class _MemoryRows:
    """Dictionaries that answer as tables would."""

    def __init__(self) -> None:
        self.version = 0
        self._token = 0
        self._leases: dict[str, Lease] = {}  # in the order of their tokens
        self._live: dict[str, Lease] = {}
        self._requests: dict[str, Request] = {}
        self._queued: dict[str, Request] = {}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._reservations: dict[str, Reservation] = {}
        self._events: list[Event] = []

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def is_any_due(self, now: float) -> bool:
        return any(lease.is_expired(now) for lease in self._live.values())

    def due(self, now: float) -> list[Lease]:
        return [lease for lease in self._live.values() if lease.is_expired(now)]

    def lease(self, lease_id: str) -> Lease | None:
        return self._leases.get(lease_id)

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        table = self._live if live else self._leases
        return [lease for lease in reversed(table.values()) if host in (None, lease.holder.host)][:limit]

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        self._leases[lease.id] = lease
        if lease.is_live:
            self._live[lease.id] = lease
        else:
            self._live.pop(lease.id, None)

    def request(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def queued(self, host: str) -> list[Request]:
        return [request for request in self._queued.values() if request.holder.host == host]

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        self._requests[request.id] = request
        if request.state is RequestState.QUEUED:
            self._queued[request.id] = request
        else:
            self._queued.pop(request.id, None)

    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def account(self, user: str, queue: str) -> Account | None:
        return self._accounts.get((user, queue))

    def keep_account(self, account: Account, *, is_new: bool = False) -> None:
        self._accounts[account.user, account.queue] = account

    def reservation(self, reservation_id: str) -> Reservation | None:
        return self._reservations.get(reservation_id)

    def reservations(self, host: str, now: float) -> list[Reservation]:
        return [kept for kept in self._reservations.values() if kept.host == host and kept.window(now) is not None]

    def add_reservation(self, reservation: Reservation) -> None:
        self._reservations[reservation.id] = reservation

    def remove_reservation(self, reservation_id: str) -> None:
        del self._reservations[reservation_id]

    def append(self, event: Event) -> Event:
        written = replace(event, sequence=len(self._events) + 1)
        self._events.append(written)
        return written

    def events(self, after: int, limit: int) -> list[Event]:
        return self._events[after : after + limit]
