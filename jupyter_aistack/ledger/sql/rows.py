"""The tables of a ledger in a database, as one transaction sees and changes them."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.ledger.rows import is_id

from . import codec
from .cache import Traits
from .compiled import Statement
from .history_rows import HistoryRows
from .host_rows import HostRows
from .transaction import OpenDatabase
from .usage_rows import UsageRows

_FEW = 64
"""So many rows are read one by one; more, with all the others."""


class SQLRows(HostRows, UsageRows, HistoryRows):
    """The tables, as one transaction sees them."""

    def __init__(
        self,
        connection: sa.PoolProxiedConnection,
        opened: OpenDatabase,
        *,
        is_sqlite: bool,
    ) -> None:
        super().__init__(connection, opened, is_sqlite=is_sqlite)
        self._read_leases: dict[str, Lease] = {}
        self._read_requests: dict[str, Request] = {}

    def expect_state(self, host: str, now: float) -> None:
        """Ask a server for all that a host's state is made of, in one round trip."""
        if self._is_sqlite:
            return
        statements = self._statements
        self._expect(statements.next_due)
        self._expect(statements.live_traits)
        self._expect(statements.queued_traits)
        self._expect(statements.accounts)
        self._expect(statements.reservations, of_host=host, now=now)

    def expect(
        self,
        *,
        due_at: float | None = None,
        leases: Iterable[str] = (),
        requests: Iterable[str] = (),
        named: Iterable[tuple[str, str]] = (),
    ) -> None:
        for request_id in filter(is_id, requests):
            self._expect(self._statements.request, key=request_id)
        for request_id, key in named:
            self._expect(self._statements.requests_named, **_names(request_id, key))
        # Whatever is known need not be asked for; if it is not so any more, a server is
        # waited for once more.
        if self._opened.known is not None:
            return
        if due_at is not None and self._writes:
            self._expect(self._statements.due, now=due_at)
        elif due_at is not None:
            self._expect(self._statements.next_due)
        for lease_id in filter(is_id, leases):
            self._expect(self._statements.lease, key=lease_id)

    def next_token(self) -> int:
        counters = self._read_counters()
        self._counters = replace(counters, token=counters.token + 1)
        return self._counters.token

    def next_due(self) -> float:
        """When the first live lease is past its end, in seconds since the epoch;
        infinity for never.
        """
        ((earliest,),) = self._fetch(self._statements.next_due)
        return math.inf if earliest is None else float(earliest)

    def is_any_due(self, now: float) -> bool:
        return self.next_due() <= now

    def due(self, now: float) -> list[Lease]:
        if self.known is not None and now < self.known.next_due:
            return []
        # Those that end now are not the next any more.
        self._written.is_partly_known = True
        self._send_written()
        return [
            self._reader.lease(row)
            for row in self._select(self._statements.due, now=now)
        ]

    def lease(self, lease_id: str) -> Lease | None:
        lease = self._written.leases.get(lease_id) or self._read_leases.get(lease_id)
        if lease is None and self.known is not None:
            lease = self.known.leases.get(lease_id)
        if lease is None:
            rows = self._select(self._statements.lease, key=lease_id)
            lease = next(map(self._reader.lease, rows), None)
            # Under the ledger's lock nobody else changes it meanwhile.
            if lease is not None and self._writes:
                self._read_leases[lease_id] = lease
        return lease

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        self._send_written()
        if live:
            live_leases = self._live() if host is None else self._live_of(host)
            return _newest_first(live_leases)[:limit]
        if host is None:
            rows = self._select(self._statements.leases, at_most=limit)
        else:
            rows = self._select(
                self._statements.leases_of_host, at_most=limit, of_host=host
            )
        return [self._reader.lease(row) for row in rows]

    def _live(self) -> list[Lease]:
        return [self._reader.lease(row) for row in self._select(self._statements.live)]

    def live_by_host(self) -> dict[str, list[Lease]]:
        self._send_written()
        traits = _by_host(self._statements.live_traits, self._live_traits())
        return {
            host: _newest_first(self._decoded_live(host, of_host))
            for host, of_host in traits.items()
        }

    def _live_of(self, host: str) -> list[Lease]:
        traits = _by_host(self._statements.live_traits, self._live_traits())
        return self._decoded_live(host, traits.get(host, []))

    def _live_traits(self) -> list[Traits]:
        return self._fetch(self._statements.live_traits)

    def _decoded_live(self, host: str, traits: list[Traits]) -> list[Lease]:
        def load(tokens: list[int]) -> dict[int, Lease]:
            if len(tokens) > _FEW:
                rows = self._select(self._statements.live_of_host, of_host=host)
            else:
                rows = self._select_each(self._statements.lease_of_token, tokens)
            return {row["token"]: self._reader.lease(row) for row in rows}

        return self._opened.leases.decoded(host, traits, load)

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None:
        self._written.leases[lease.id] = lease
        self._written.note(lease.id, is_new=is_new)

    def request(self, request_id: str) -> Request | None:
        request = self._written.requests.get(request_id)
        request = request or self._read_requests.get(request_id)
        if request is None:
            rows = self._select(self._statements.request, key=request_id)
            request = next(iter(self._requests(rows)), None)
            if request is not None and self._writes:
                self._read_requests[request_id] = request
        return request

    def requests_named(self, request_id: str, key: str) -> list[Request]:
        self._send_written()
        names = _names(request_id, key)
        return self._requests(self._select(self._statements.requests_named, **names))

    def queued(self, host: str) -> list[Request]:
        return self.queued_beside(host)[0]

    def queued_beside(self, host: str) -> tuple[list[Request], Mapping[str, int]]:
        self._send_written()
        statement = self._statements.queued_traits
        traits = _by_host(statement, self._fetch(statement))
        own = self._decoded_queued(host, traits.pop(host, []))
        others = map(statement.mapping, itertools.chain.from_iterable(traits.values()))
        users = self._reader.readable("request", others, codec.user_of_request)
        return own, Counter(users)

    def all_queued(self) -> list[Request]:
        self._send_written()
        return self._requests(self._select(self._statements.all_queued))

    def _decoded_queued(self, host: str, traits: list[Traits]) -> list[Request]:
        def load(ids: list[str]) -> dict[str, Request]:
            if len(ids) > _FEW:
                rows = self._select(self._statements.queued, of_host=host)
            else:
                rows = self._select_each(self._statements.request, ids)
            return {request.id: request for request in self._requests(rows)}

        return self._opened.queued.decoded(host, traits, load)

    def keep_request(self, request: Request, *, is_new: bool = False) -> None:
        self._written.requests[request.id] = codec.as_stored(request)
        self._written.note(request.id, is_new=is_new)

    def accounts(self) -> list[Account]:
        self._send_written()
        return [
            codec.account_from_row(row)
            for row in self._select(self._statements.accounts)
        ]

    def account(self, user: str, queue: str) -> Account | None:
        key = (codec.storable(user), queue)
        account = self._written.accounts.get(key)
        if account is None and self.known is not None:
            account = self.known.accounts.get(key)
        if account is None:
            names = {"of_user": key[0], "of_queue": queue}
            rows = self._select(self._statements.account, **names)
            account = next(map(codec.account_from_row, rows), None)
        return account

    def keep_account(self, account: Account, *, is_new: bool = False) -> None:
        stored = replace(account, user=codec.storable(account.user))
        key = (stored.user, stored.queue)
        self._written.accounts[key] = stored
        self._written.note(key, is_new=is_new)

    def reservation(self, reservation_id: str) -> Reservation | None:
        rows = self._select(self._statements.reservation, key=reservation_id)
        return next(iter(self._reservations(rows)), None)

    def reservations(self, host: str, now: float) -> list[Reservation]:
        rows = self._select(self._statements.reservations, of_host=host, now=now)
        return self._reservations(rows)

    def add_reservation(self, reservation: Reservation) -> None:
        self._written.is_partly_known = True
        self._execute(
            self._statements.insert_reservation, **codec.reservation_to_row(reservation)
        )

    def remove_reservation(self, reservation_id: str) -> None:
        self._written.is_partly_known = True
        self._execute(self._statements.delete_reservation, key=reservation_id)

    # -- sending what was written ------------------------------------------------------

    def _send_written(self) -> None:
        """Send what was written, each row once, as it was written last."""
        written = self._written
        for key in written.unsent:
            is_new = key in written.new
            if key in written.accounts:
                self._send_account(written.accounts[key], is_new=is_new)
            elif key in written.requests:
                self._send_request(written.requests[key], is_new=is_new)
            elif key in written.leases:
                self._send_lease(written.leases[key], is_new=is_new)
        written.unsent.clear()
        written.new.clear()
        self._send_events()

    def _send_lease(self, lease: Lease, *, is_new: bool) -> None:
        row = codec.lease_to_row(lease)
        self._forget_expected(self._statements.lease, lease.id)
        if is_new:
            self._execute(self._statements.insert_lease, **row)
        else:
            self._execute(self._statements.update_lease, **row, key=lease.token)

    def _send_request(self, request: Request, *, is_new: bool) -> None:
        row = codec.request_to_row(request)
        self._forget_expected(self._statements.request, request.id)
        if is_new:
            self._execute(self._statements.insert_request, **row)
        else:
            self._execute(self._statements.update_request, **row, key=request.id)

    def _send_account(self, account: Account, *, is_new: bool) -> None:
        row = codec.account_to_row(account)
        if is_new:
            self._execute(self._statements.insert_account, **row)
        else:
            key = {"of_user": row["user"], "of_queue": row["queue"]}
            self._execute(self._statements.update_account, **row, **key)

    def _requests(self, rows: Iterable[Mapping[str, Any]]) -> list[Request]:
        return self._reader.readable("request", rows, codec.request_from_row)

    def _reservations(self, rows: Iterable[Mapping[str, Any]]) -> list[Reservation]:
        read = codec.reservation_from_row
        return self._reader.readable("reservation", rows, read)


def _names(request_id: str, key: str) -> dict[str, str | None]:
    """The parameters that name a request; of no key is nobody's."""
    return {"key": request_id, "of_key": codec.storable(key) or None}


def _newest_first(leases: Iterable[Lease]) -> list[Lease]:
    return sorted(leases, key=attrgetter("token"), reverse=True)


def _by_host(
    statement: Statement, traits: Iterable[Traits]
) -> defaultdict[str, list[Traits]]:
    """Rows of traits by the host that each is of."""
    host = statement.columns.index("host")
    grouped: defaultdict[str, list[Traits]] = defaultdict(list)
    for row in traits:
        grouped[str(row[host])].append(row)
    return grouped
