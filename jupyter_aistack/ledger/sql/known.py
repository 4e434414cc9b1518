"""What a database holds, as this process has last read and written it: true as long as
nobody else has written since, which a stamp tells.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request, RequestState
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.ledger.lease_end import due_at
from jupyter_aistack.ledger.state import LedgerState

AccountKey = tuple[str, str]
RowKey = str | AccountKey
"""What a row is found by: the id of a lease or a request, or whose account it is."""


@dataclass(frozen=True)
class Counters:
    """The ledger's numbers: of its changes that concern plans, of its leases and of its
    events; the digest of the last event; and the drains of devices, as JSON.
    """

    version: int
    token: int
    event_sequence: int
    event_digest: str
    drains: str


@dataclass
class Written:
    """What one transaction has written of that which a host's state is made of, and the
    events that it has not sent yet.

    Attributes:
        leases, requests, accounts: by id, and by user and queue.
        new: keys of those that were not there before.
        unsent: keys of those that have not been sent to the database, the first to be
            written first.
        events: their rows, to be sent.
        is_partly_known: something else was written that states are made of.
    """

    leases: dict[str, Lease] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    new: set[RowKey] = field(default_factory=set)
    unsent: dict[RowKey, None] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    is_partly_known: bool = False

    def note(self, key: RowKey, *, is_new: bool) -> None:
        """A row of that key is to be sent."""
        self.unsent[key] = None
        if is_new:
            self.new.add(key)


@dataclass(frozen=True)
class HostState:
    """A host's state, and when it was read, in seconds since the epoch."""

    state: LedgerState
    read_at: float


@dataclass(frozen=True, kw_only=True)
class KnownState:
    """All that is known, of one moment.

    Attributes:
        stamp: the same as long as nothing at all has been written.
        counters: as they are stored.
        next_due: no live lease of any host is past its end before that time.
        hosts: the states that were read, by host.
    """

    stamp: Hashable
    counters: Counters
    next_due: float
    hosts: Mapping[str, HostState]

    def state(self, host: str, now: float) -> LedgerState | None:
        """A host's state at `now`; None where it must be read: nobody has yet, a lease
        is due, or the clock was set back.
        """
        known = self.hosts.get(host)
        if known is None or now < known.read_at or self.next_due <= now:
            return None
        return later(known.state, now)

    @cached_property
    def leases(self) -> Mapping[str, Lease]:
        """The live leases of all hosts that are known, by id."""
        states = (host.state for host in self.hosts.values())
        return {lease.id: lease for state in states for lease in state.leases}

    @cached_property
    def accounts(self) -> Mapping[AccountKey, Account]:
        """The accounts by user and queue: those of all hosts are in each state."""
        states = (host.state for host in self.hosts.values())
        return {_key_of(each): each for state in states for each in state.accounts}

    def after(
        self, written: Written, counters: Counters, stamp: Hashable
    ) -> KnownState | None:
        """What is known once that has been written; None where that cannot be said."""
        if written.is_partly_known:
            return None
        dues = (due_at(lease) for lease in written.leases.values() if lease.is_live)
        return KnownState(
            stamp=stamp,
            counters=counters,
            next_due=min([self.next_due, *dues]),
            hosts={
                name: replace(known, state=_after(known.state, written, counters))
                for name, known in self.hosts.items()
                if _is_of(written, name)
            },
        )


def later(state: LedgerState, now: float) -> LedgerState:
    """The same state some time on: all that time alone changes is that reservations
    pass.
    """
    to_come = tuple(kept for kept in state.reservations if kept.window(now) is not None)
    if len(to_come) == len(state.reservations):
        return state
    return replace(state, reservations=to_come)


def _is_of(written: Written, host: str) -> bool:
    """Whether all that was written is of that host: its state does not tell all of the
    others.
    """
    holders = [lease.holder for lease in written.leases.values()]
    holders += [request.holder for request in written.requests.values()]
    return all(holder.host == host for holder in holders)


def _after(state: LedgerState, written: Written, counters: Counters) -> LedgerState:
    return replace(
        state,
        version=counters.version,
        leases=_leases_after(state.leases, written.leases),
        requests=_requests_after(state.requests, written.requests),
        accounts=_accounts_after(state.accounts, written.accounts),
    )


def _leases_after(
    leases: tuple[Lease, ...], written: Mapping[str, Lease]
) -> tuple[Lease, ...]:
    if not written:
        return leases
    # What was there keeps its place, and a new lease has a higher token than all.
    after = {lease.id: lease for lease in leases}
    for lease in written.values():
        if lease.is_live:
            after[lease.id] = lease
        else:
            after.pop(lease.id, None)
    return tuple(after.values())


def _requests_after(
    requests: tuple[Request, ...], written: Mapping[str, Request]
) -> tuple[Request, ...]:
    if not written:
        return requests
    after = [request for request in requests if request.id not in written]
    for request in written.values():
        if request.state is RequestState.QUEUED:
            insort(after, request, key=attrgetter("arrival"))
    return tuple(after)


def _accounts_after(
    accounts: tuple[Account, ...], written: Mapping[AccountKey, Account]
) -> tuple[Account, ...]:
    if not written:
        return accounts
    by_key = {_key_of(account): account for account in accounts}
    by_key.update(written)
    return tuple(sorted(by_key.values(), key=_key_of))


def _key_of(account: Account) -> AccountKey:
    return account.user, account.queue
