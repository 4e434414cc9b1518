"""What every ledger does, written once over the few rows a medium must keep.

`TransactionalLedger` is the whole contract of the port; a medium adds how a transaction begins
and ends, and how rows are found and kept (`Rows`).
"""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from ..core.events import Event, EventKind
from ..core.lease import Lease, Outcome, Step, advance
from ..core.plan import Action, End, Grant, Plan, Reject, grant_to_lease
from ..core.request import Request, RequestState
from ..core.units import format_duration
from ..exceptions import InvalidTransition, LeaseError, LeaseLost, LeaseNotFound, LedgerConflict, StaleToken
from .base import Ledger, LedgerState

REFUSALS = (LeaseError, InvalidTransition)
"""Errors raised before a write has changed anything; the expiries that came first in its transaction are kept."""

STEP_FIELDS = frozenset({"holder", "enforced_by", "verified", "note"})
BIND_FIELDS = frozenset({"holder", "enforced_by", "note"})
LARGEST = 2**63 - 1

_STEP_EVENTS = {
    Step.ACTIVATE: EventKind.LEASE_ACTIVATED,
    Step.SUSPEND: EventKind.LEASE_SUSPENDED,
    Step.RESUME: EventKind.LEASE_RESUMED,
}
_END_EVENTS = {
    Outcome.RELEASED: EventKind.LEASE_RELEASED,
    Outcome.EXPIRED: EventKind.LEASE_EXPIRED,
    Outcome.PREEMPTED: EventKind.LEASE_PREEMPTED,
    Outcome.FAILED: EventKind.LEASE_FAILED,
    Outcome.ABANDONED: EventKind.LEASE_ABANDONED,
}
_END_STEPS = {
    Outcome.EXPIRED: Step.EXPIRE,
    Outcome.PREEMPTED: Step.PREEMPT,
    Outcome.FAILED: Step.FAIL,
    Outcome.ABANDONED: Step.REAP,
}


class Rows(Protocol):
    """What a transaction can see and keep. Only a write transaction may call the methods that change something."""

    version: int

    def next_token(self) -> int:
        """A number larger than any given before."""

    def is_any_due(self, now: float) -> bool:
        """Whether a live lease is past its time; cheap."""

    def due(self, now: float) -> list[Lease]:
        """The live leases past their time."""

    def lease(self, lease_id: str) -> Lease | None: ...

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        """Leases of `host` (None is all), the highest token first."""

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None: ...

    def request(self, request_id: str) -> Request | None: ...

    def queued(self, host: str) -> list[Request]: ...

    def keep_request(self, request: Request, *, is_new: bool = False) -> None: ...

    def append(self, event: Event) -> Event:
        """Write an event at the end of the history and return it with its sequence."""

    def events(self, after: int, limit: int) -> list[Event]: ...


class TransactionalLedger(Ledger):
    """The port over two kinds of transactions, which a medium provides."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Rows]:
        """A transaction that sees one moment and changes nothing."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Rows]:
        """A transaction that no other write runs beside. Kept on success and on `REFUSALS`, undone on other errors."""

    @contextmanager
    def _seeing(self, now: float) -> Iterator[Rows]:
        """A reading transaction in which no lease lives past its time.

        Those that do are ended for real first, not merely hidden: a plan may count on their slices.
        """
        with self._reading() as rows:
            if not rows.is_any_due(now):
                yield rows
                return
        with self._changing(now) as rows:
            yield rows

    @contextmanager
    def _changing(self, now: float) -> Iterator[Rows]:
        with self._writing() as rows:
            expire_due(rows, now)
            yield rows

    def read(self, host: str, now: float) -> LedgerState:
        with self._seeing(now) as rows:
            leases = rows.leases(host=host, live=True, limit=LARGEST)
            requests = sorted(rows.queued(host), key=lambda request: (request.submitted_at, request.id))
            return LedgerState(version=rows.version, leases=tuple(reversed(leases)), requests=tuple(requests))

    def submit(self, request: Request) -> Request:
        with self._changing(request.submitted_at) as rows:
            known = rows.request(request.id)
            if known is not None:
                return known
            written = replace(request, state=RequestState.QUEUED, lease_id="")
            rows.keep_request(written, is_new=True)
            rows.version += 1
            rows.append(Event(kind=EventKind.REQUEST_QUEUED, at=request.submitted_at, request_id=request.id))
            return written

    def cancel(self, request_id: str, now: float, reason: str = "") -> Request:
        with self._changing(now) as rows:
            request = _request(rows, request_id)
            if request.state is not RequestState.QUEUED:
                return request
            return _decide(rows, request, RequestState.CANCELLED, EventKind.REQUEST_CANCELLED, now, reason)[0]

    def apply(self, plan: Plan, now: float) -> tuple[Event, ...]:
        with self._writing() as rows:
            # Checked before anything is changed, expiries too: they only free what the plan holds for taken.
            _check(rows, plan, now)
            events = expire_due(rows, now)
            for action in plan.actions:
                events += _carry_out(rows, action, now)
            for request_id, reason in plan.reasons.items():
                _write_reason(rows, request_id, reason)
            return tuple(events)

    def step(self, lease_id: str, token: int, step: Step, now: float, **changes: object) -> Lease:
        _allow(changes, STEP_FIELDS)
        with self._changing(now) as rows:
            lease = _guarded(rows, lease_id, token)
            if lease.outcome is Outcome.RELEASED and step in (Step.RELEASE, Step.FINISH):
                return lease
            if lease.outcome is not Outcome.RELEASED:
                _refuse_ended(lease)
            return _take(rows, lease, step, now, changes)

    def renew(self, lease_id: str, token: int, now: float, expires_at: float) -> Lease:
        with self._changing(now) as rows:
            lease = _live(rows, lease_id, token)
            until = expires_at if lease.ends_at is None else min(expires_at, lease.ends_at)
            return _keep(rows, replace(lease, expires_at=until))

    def extend(self, lease_id: str, token: int, now: float, ends_at: float | None) -> Lease:
        with self._changing(now) as rows:
            lease = _keep(rows, replace(_live(rows, lease_id, token), ends_at=ends_at))
            detail = "no end of its own" if ends_at is None else f"ends in {format_duration(ends_at - now)}"
            rows.append(_lease_event(EventKind.LEASE_EXTENDED, lease, now, detail))
            return lease

    def bind(self, lease_id: str, token: int, now: float, **changes: object) -> Lease:
        _allow(changes, BIND_FIELDS)
        with self._changing(now) as rows:
            if "holder" in changes:  # a plan that takes its old holder for dead holds no more
                rows.version += 1
            return _keep(rows, _with(_live(rows, lease_id, token), changes))

    def lease(self, lease_id: str, now: float) -> Lease:
        with self._seeing(now) as rows:
            return _lease(rows, lease_id)

    def request(self, request_id: str) -> Request:
        with self._reading() as rows:
            return _request(rows, request_id)

    def leases(self, now: float, *, host: str | None = None, live: bool = True, limit: int = 1000) -> tuple[Lease, ...]:
        with self._seeing(now) as rows:
            return tuple(rows.leases(host=host, live=live, limit=_within(limit)))

    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        with self._reading() as rows:
            return tuple(rows.events(_within(after), _within(limit)))


def due_at(lease: Lease) -> float:
    """When a lease ends unless renewed or extended, in seconds since the epoch."""
    ends: list[float] = [lease.expires_at] if lease.ends_at is None else [lease.expires_at, lease.ends_at]
    return min(ends)


def expire_due(rows: Rows, now: float) -> list[Event]:
    """End every live lease that is past its time. It ended when its time was up, not when that was noticed."""
    events = []
    for lease in sorted(rows.due(now), key=lambda lease: lease.token):
        ended = _keep(rows, advance(lease, Step.EXPIRE, due_at(lease)))
        rows.version += 1
        events.append(rows.append(_lease_event(EventKind.LEASE_EXPIRED, ended, due_at(lease), "its time was up")))
    return events


def _check(rows: Rows, plan: Plan, now: float) -> None:
    """Refuse a plan that was made for another state of the ledger."""
    if plan.version != rows.version:
        raise LedgerConflict(version=rows.version, planned_for=plan.version)
    for action in plan.actions:
        if isinstance(action, End):
            _check_end(rows, action, now)
        else:
            request_id = action.request.id if isinstance(action, Grant) else action.request_id
            if _request(rows, request_id).state is not RequestState.QUEUED:
                raise LedgerConflict(f"request {request_id} does not wait any more", request_id=request_id)


def _check_end(rows: Rows, action: End, now: float) -> None:
    lease = _guarded(rows, action.lease_id, action.token)
    # A renewal leaves the version alone, so it may have come between the snapshot and the plan.
    if action.outcome is Outcome.EXPIRED and lease.is_live and not lease.is_expired(now):
        raise LedgerConflict(f"lease {lease.id} was renewed meanwhile", lease_id=lease.id)


def _carry_out(rows: Rows, action: Action, now: float) -> list[Event]:
    if isinstance(action, Grant):
        return _grant(rows, action, now)
    if isinstance(action, Reject):
        request = _request(rows, action.request_id)
        return [_decide(rows, request, RequestState.REJECTED, EventKind.REQUEST_REJECTED, now, action.reason)[1]]
    lease = _lease(rows, action.lease_id)
    if not lease.is_live:
        return []
    ended = _keep(rows, advance(lease, _END_STEPS[action.outcome], now))
    rows.version += 1
    return [rows.append(_lease_event(_END_EVENTS[action.outcome], ended, now, action.detail))]


def _grant(rows: Rows, grant: Grant, now: float) -> list[Event]:
    lease = grant_to_lease(grant, f"l-{uuid.uuid4().hex[:16]}", rows.next_token(), now)
    rows.keep_lease(lease, is_new=True)
    rows.keep_request(replace(grant.request, state=RequestState.GRANTED, reason="", lease_id=lease.id))
    rows.version += 1
    return [rows.append(_lease_event(EventKind.LEASE_GRANTED, lease, now))]


def _decide(
    rows: Rows, request: Request, state: RequestState, kind: EventKind, now: float, reason: str
) -> tuple[Request, Event]:
    decided = replace(request, state=state, reason=reason)
    rows.keep_request(decided)
    rows.version += 1
    return decided, rows.append(Event(kind=kind, at=now, request_id=request.id, detail=reason))


def _write_reason(rows: Rows, request_id: str, reason: str) -> None:
    request = rows.request(request_id)
    if request is not None and request.state is RequestState.QUEUED and request.reason != reason:
        rows.keep_request(replace(request, reason=reason))


def _take(rows: Rows, lease: Lease, step: Step, now: float, changes: dict[str, object]) -> Lease:
    after = _keep(rows, _with(advance(lease, step, now), changes))
    if after.outcome is not None:
        rows.version += 1
        rows.append(_lease_event(_END_EVENTS[after.outcome], after, now, after.note if step is Step.FAIL else ""))
    elif step in _STEP_EVENTS:
        rows.append(_lease_event(_STEP_EVENTS[step], after, now))
    if changes.get("verified") is False:
        rows.append(_lease_event(EventKind.LEASE_NOT_ENFORCED, after, now, after.note))
    return after


def _keep(rows: Rows, lease: Lease) -> Lease:
    rows.keep_lease(lease)
    return lease


def _live(rows: Rows, lease_id: str, token: int) -> Lease:
    lease = _guarded(rows, lease_id, token)
    _refuse_ended(lease)
    return lease


def _guarded(rows: Rows, lease_id: str, token: int) -> Lease:
    lease = _lease(rows, lease_id)
    if lease.token != token:
        raise StaleToken(f"lease {lease_id} has moved on: token {token} may change nothing", lease_id=lease_id)
    return lease


def _refuse_ended(lease: Lease) -> None:
    if lease.outcome is not None:
        outcome = lease.outcome.value
        message = f"lease {lease.id} has ended ({outcome}); request a new one"
        raise LeaseLost(message, lease_id=lease.id, outcome=outcome)


def _lease(rows: Rows, lease_id: str) -> Lease:
    lease = rows.lease(lease_id) if _is_id(lease_id) else None
    if lease is None:
        raise LeaseNotFound(f"lease_id: there is no lease {lease_id!r}", field="lease_id")
    return lease


def _request(rows: Rows, request_id: str) -> Request:
    request = rows.request(request_id) if _is_id(request_id) else None
    if request is None:
        raise LeaseNotFound(f"request_id: there is no request {request_id!r}", field="request_id")
    return request


def _is_id(text: str) -> bool:
    """Whether an id could be ours; databases choke on lone surrogates and NUL."""
    return text.isascii() and text.isprintable()


def _with(lease: Lease, changes: dict[str, Any]) -> Lease:
    return replace(lease, **changes)


def _allow(changes: dict[str, object], fields: frozenset[str]) -> None:
    strange = sorted(changes.keys() - fields)
    if strange:
        raise TypeError(f"cannot change {', '.join(strange)}; only {', '.join(sorted(fields))}")


def _within(number: int) -> int:
    return min(max(number, 0), LARGEST)


def _lease_event(kind: EventKind, lease: Lease, at: float, detail: str = "") -> Event:
    return Event(kind=kind, at=at, request_id=lease.request_id, lease_id=lease.id, detail=detail)
