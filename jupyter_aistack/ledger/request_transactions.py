"""The requests of a ledger: submitted, withdrawn, put in another name."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.request import Holder, Request, RequestState

from .apply_plan import set_request_state
from .rows import Rows, find_request, request_event
from .transactions import Transactions


class RequestTransactions(Transactions):
    """The part of the port that requests are written down with."""

    def submit(self, request: Request) -> Request:
        named = [(request.id, request.idempotency_key)]
        with self._changing(request.submitted_at, named=named) as rows:
            return submit_request(rows, request)

    def cancel(self, request_id: str, now: float, reason: str = "") -> Request:
        with self._changing(now, requests=[request_id]) as rows:
            request = find_request(rows, request_id)
            if request.state is not RequestState.QUEUED:
                return request
            cancelled = replace(request, state=RequestState.CANCELLED, reason=reason)
            kind = EventKind.REQUEST_CANCELLED
            set_request_state(rows, request, cancelled, kind, now)
            return cancelled

    def rebind(self, request_id: str, now: float, holder: Holder) -> Request:
        with self._changing(now, requests=[request_id]) as rows:
            request = find_request(rows, request_id)
            if request.state is not RequestState.QUEUED or request.holder == holder:
                return request
            rebound = replace(request, holder=holder)
            rows.keep_request(rebound)
            # Plans that would grant it by its old holder must be made anew.
            rows.version += 1
            bound = EventKind.REQUEST_BOUND
            rows.append(request_event(bound, rebound, now, was=request))
            return rebound

    def request_of_key(self, user: str, key: str) -> Request | None:
        with self._reading() as rows:
            return _request_of_key(rows, user, key)

    def request(self, request_id: str) -> Request:
        with self._reading() as rows:
            return find_request(rows, request_id)

    def waiting(self) -> tuple[Request, ...]:
        with self._reading() as rows:
            return tuple(sorted(rows.all_queued(), key=attrgetter("arrival")))


def _request_of_key(rows: Rows, user: str, key: str) -> Request | None:
    """The user's request of a key; what was taken back may be asked for again."""
    named = rows.requests_named("", key) if key else []
    return next((each for each in named if _is_kept(rows, each, user)), None)


def submit_request(rows: Rows, request: Request) -> Request:
    """Write a request down, or find what it was written down as before."""
    # A caller that got no answer sends the same request again.
    known = _known_request(rows, request)
    if known is not None:
        return known
    written = replace(request, state=RequestState.QUEUED, lease_id="")
    rows.keep_request(written, is_new=True)
    rows.version += 1
    kind = EventKind.REQUEST_QUEUED
    rows.append(request_event(kind, written, request.submitted_at, was=None))
    return written


def _known_request(rows: Rows, request: Request) -> Request | None:
    """The request of the same id, or of the same user and key."""
    named = rows.requests_named(request.id, request.idempotency_key)
    for known in named:
        if known.id == request.id:
            return known
    user = request.holder.user
    return next((each for each in named if _is_kept(rows, each, user)), None)


def _is_kept(rows: Rows, request: Request, user: str) -> bool:
    """Whether a request is a user's and was not taken back."""
    return request.holder.user == user and not _is_taken_back(rows, request)


def _is_taken_back(rows: Rows, request: Request) -> bool:
    """Whether a request came to nothing before its asker could use it: it was
    withdrawn, or the lease that it became has failed.
    """
    if request.state is RequestState.CANCELLED:
        return True
    lease = rows.lease(request.lease_id) if request.lease_id else None
    return lease is not None and lease.outcome is Outcome.FAILED
