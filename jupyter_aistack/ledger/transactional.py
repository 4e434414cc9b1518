"""What every ledger does, written once over the few rows a medium must keep.

`TransactionalLedger` is the whole contract of the port; a medium adds how a transaction
begins and ends, and how rows are read and written (`Rows`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import Any

from jupyter_aistack.core.model.condition import ConditionUpdate
from jupyter_aistack.core.model.device_state import DeviceState, StatePhase
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    Outcome,
    advance,
)
from jupyter_aistack.core.model.plan import Plan
from jupyter_aistack.core.model.request import Holder, Request, RequestState
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.core.scheduling.lease_ends import after_pause

from .apply_plan import (
    apply_action,
    check,
    keep_residence,
    named_leases,
    named_requests,
    set_request_state,
    touch,
)
from .base import LedgerState
from .device_transactions import DeviceTransactions
from .drain_transactions import DrainTransactions
from .history_transactions import HistoryTransactions
from .host_transactions import HostTransactions
from .lease_end import end, expire_due
from .reservation_transactions import ReservationTransactions
from .rows import (
    Rows,
    find_lease,
    find_request,
    guarded_lease,
    is_id,
    keep_conditions,
    lease_event,
    live_lease,
    refuse_ended,
    request_event,
    request_of_key_in,
)
from .transactions import within
from .usage_transactions import UsageTransactions

STEP_FIELDS = frozenset({"holder", "enforced_by", "verified"})
BIND_FIELDS = frozenset({"holder", "enforced_by", "active_at", "notice"})

_STEP_EVENTS = {
    LeaseTransition.ACTIVATE: EventKind.LEASE_ACTIVATED,
    LeaseTransition.SUSPEND: EventKind.LEASE_SUSPENDED,
    LeaseTransition.RESUME: EventKind.LEASE_RESUMED,
}


_RELEASING = (LeaseTransition.RELEASE, LeaseTransition.FINISH)


class TransactionalLedger(
    HostTransactions,
    DeviceTransactions,
    DrainTransactions,
    UsageTransactions,
    ReservationTransactions,
    HistoryTransactions,
):
    """The port over two kinds of transactions, which a medium provides."""

    def read(self, host: str, now: float) -> LedgerState:
        with self._seeing(now) as rows:
            live = rows.live_by_host()
            leases = live.pop(host, [])
            queued, queued_elsewhere = rows.queued_beside(host)
            requests = sorted(queued, key=attrgetter("arrival"))
            accounts = sorted(rows.accounts(), key=attrgetter("user", "queue"))
            reservations = sorted(
                rows.reservations(host, now), key=attrgetter("starts_at", "id")
            )
            return LedgerState(
                version=rows.version,
                leases=tuple(reversed(leases)),
                requests=tuple(requests),
                accounts=tuple(accounts),
                reservations=tuple(reservations),
                drains=tuple(drain for drain in rows.drains() if drain.host == host),
                elsewhere=tuple(itertools.chain.from_iterable(live.values())),
                queued_elsewhere=queued_elsewhere,
            )

    def submit(self, request: Request) -> Request:
        with self._changing(request.submitted_at, requests=[request.id]) as rows:
            # A caller that got no answer sends the same request again.
            known = rows.request(request.id)
            if known is None:
                user = request.holder.user
                known = request_of_key_in(rows, user, request.idempotency_key)
            if known is not None:
                return known

            written = replace(request, state=RequestState.QUEUED, lease_id="")
            rows.keep_request(written, is_new=True)
            rows.version += 1
            kind = EventKind.REQUEST_QUEUED
            rows.append(request_event(kind, written, request.submitted_at, was=None))
            return written

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
            return request_of_key_in(rows, user, key)

    def apply(self, plan: Plan, now: float) -> tuple[Event, ...]:
        with self._writing() as rows:
            rows.expect(
                due_at=now, leases=named_leases(plan), requests=named_requests(plan)
            )
            # Checked before anything is changed, expiries too: they only free what the
            # plan holds for taken.
            check(rows, plan, now)
            events = expire_due(rows, now, self.half_life_seconds)
            for action in plan.actions:
                events += apply_action(rows, action, now, self.half_life_seconds)
            return tuple(events)

    def step(
        self,
        lease_id: str,
        token: int,
        step: LeaseTransition,
        now: float,
        *,
        conditions: ConditionUpdate | None = None,
        **changes: object,
    ) -> Lease:
        _allow(changes, STEP_FIELDS)
        with self._changing(now, leases=[lease_id]) as rows:
            lease = guarded_lease(rows, lease_id, token)
            # Releasing a lease twice is releasing it once; any other step on a lease
            # that has ended tells its holder so.
            if lease.outcome is Outcome.RELEASED and step in _RELEASING:
                return lease
            refuse_ended(lease)
            return self._advance(rows, lease, step, now, changes, conditions)

    def _advance(
        self,
        rows: Rows,
        lease: Lease,
        step: LeaseTransition,
        now: float,
        changes: dict[str, Any],
        conditions: ConditionUpdate | None = None,
    ) -> Lease:
        # Applied to the row as it is in this transaction: a condition that another
        # process has set since the caller read the lease must not be lost.
        update = conditions or ConditionUpdate()
        changes = {**changes, "conditions": update.apply(lease.conditions)}
        after = replace(advance(lease, step, now), **changes)
        if after.state is LeaseState.ENDED:
            # Its end, and what its user is charged for it, are one transaction: a
            # lease that ended uncharged could never be found again.
            reason = update.text if step is LeaseTransition.FAIL else ""
            end(rows, lease, step, now, self.half_life_seconds, reason, changes)
        else:
            rows.keep_lease(after)

        if step in _STEP_EVENTS:
            detail = _detail(after, step)
            kind = _STEP_EVENTS[step]
            rows.append(lease_event(kind, after, now, detail, was=lease))
        if changes.get("verified") is False:
            kind = EventKind.LEASE_NOT_ENFORCED
            rows.append(lease_event(kind, after, now, update.text, was=lease))
        return after

    def renew(self, lease_id: str, token: int, now: float, expires_at: float) -> Lease:
        with self._changing(now, leases=[lease_id]) as rows:
            lease = live_lease(rows, lease_id, token)
            resumed = after_pause(lease, now)
            if resumed != lease:
                rows.version += 1
            kept_until = _within_end(expires_at, lease.ends_at)
            return _keep(rows, resumed, expires_at=kept_until)

    def extend(
        self,
        lease_id: str,
        token: int,
        now: float,
        ends_at: float | None,
        *,
        expires_at: float | None = None,
    ) -> Lease:
        with self._changing(now, leases=[lease_id]) as rows:
            lease = live_lease(rows, lease_id, token)
            renewed = lease.expires_at if expires_at is None else expires_at
            kept_until = _within_end(renewed, ends_at)
            extended = _keep(rows, lease, ends_at=ends_at, expires_at=kept_until)
            detail = "no end of its own"
            if ends_at is not None:
                detail = f"ends in {format_duration(ends_at - now)}"
            kind = EventKind.LEASE_EXTENDED
            rows.append(lease_event(kind, extended, now, detail, was=lease))
            return extended

    def bind(
        self,
        lease_id: str,
        token: int,
        now: float,
        *,
        conditions: ConditionUpdate | None = None,
        **changes: object,
    ) -> Lease:
        _allow(changes, BIND_FIELDS)
        with self._changing(now, leases=[lease_id]) as rows:
            lease = live_lease(rows, lease_id, token)
            # Plans that take its old holder for dead, or go by its old notice, must be
            # made anew.
            if "holder" in changes or "notice" in changes:
                rows.version += 1
            if conditions is not None:
                changes["conditions"] = conditions.apply(lease.conditions)
            bound = _keep(rows, lease, **changes)
            if bound.holder != lease.holder:
                rows.append(lease_event(EventKind.LEASE_BOUND, bound, now, was=lease))
            return bound

    def remark(
        self,
        lease_id: str,
        token: int,
        now: float,
        kind: EventKind,
        detail: str,
        *,
        conditions: ConditionUpdate | None = None,
    ) -> Lease:
        with self._changing(now, leases=[lease_id]) as rows:
            lease = live_lease(rows, lease_id, token)
            update = conditions or ConditionUpdate()
            remarked = keep_conditions(rows, lease, update)
            rows.append(lease_event(kind, remarked, now, detail, was=lease))
            return remarked

    def update_device_state(
        self,
        lease_id: str,
        token: int,
        now: float,
        change: Callable[[DeviceState], DeviceState],
    ) -> Lease:
        with self._changing(now, leases=[lease_id]) as rows:
            lease = live_lease(rows, lease_id, token)
            after = change(lease.residence) if lease.residence is not None else None
            if after is None or after == lease.residence:
                return lease
            return self._update_device_state(rows, lease, after, now)

    def _update_device_state(
        self, rows: Rows, lease: Lease, after: DeviceState, now: float
    ) -> Lease:
        kept = keep_residence(rows, lease, after, now)
        if after.phase is StatePhase.PARKED and kept.state is LeaseState.ACTIVE:
            return self._advance(rows, kept, LeaseTransition.SUSPEND, now, {})
        if after.phase is StatePhase.RESIDENT and kept.state is LeaseState.SUSPENDED:
            return self._advance(rows, kept, LeaseTransition.RESUME, now, {})
        if after.phase is StatePhase.LOST:
            kind = EventKind.LEASE_STATE_LOST
            rows.append(lease_event(kind, kept, now, after.note, was=lease))
        elif _is_by_hand(lease, kept):
            kind = EventKind.LEASE_STATE_CHANGED
            rows.append(lease_event(kind, kept, now, was=lease))
        return kept

    def touch(self, lease_ids: Iterable[str], now: float) -> None:
        wanted = [lease_id for lease_id in dict.fromkeys(lease_ids) if is_id(lease_id)]
        if not wanted:
            return
        with self._changing(now, leases=wanted) as rows:
            for lease_id in wanted:
                lease = rows.lease(lease_id)
                if lease is not None and lease.is_live:
                    touch(rows, lease, now)

    def lease(self, lease_id: str, now: float) -> Lease:
        with self._seeing(now, leases=[lease_id]) as rows:
            return find_lease(rows, lease_id)

    def request(self, request_id: str) -> Request:
        with self._reading() as rows:
            return find_request(rows, request_id)

    def leases(
        self,
        now: float,
        *,
        host: str | None = None,
        live: bool = True,
        limit: int = 1000,
    ) -> tuple[Lease, ...]:
        with self._seeing(now) as rows:
            return tuple(rows.leases(host=host, live=live, limit=within(limit)))

    def waiting(self) -> tuple[Request, ...]:
        with self._reading() as rows:
            return tuple(sorted(rows.all_queued(), key=attrgetter("arrival")))


def _is_by_hand(before: Lease, after: Lease) -> bool:
    """Whether a user has asked for where the device state is to be."""
    was = before.residence
    now = after.residence
    if was is None or now is None:
        return False
    is_asked = now.asked is not was.asked and bool(now.asked.value)
    return is_asked or now.is_kept != was.is_kept


def _keep(rows: Rows, lease: Lease, **changes: Any) -> Lease:
    changed = replace(lease, **changes)
    rows.keep_lease(changed)
    return changed


def _within_end(expires_at: float, ends_at: float | None) -> float:
    """Until when a lease is renewed: no longer than to the end its user asked for."""
    return expires_at if ends_at is None else min(expires_at, ends_at)


def _detail(lease: Lease, step: LeaseTransition) -> str:
    """The words of a step's event: for a move of the device state, how much that was
    and how long it took.
    """
    is_move = step in (LeaseTransition.SUSPEND, LeaseTransition.RESUME)
    if not is_move or lease.residence is None:
        return ""
    return lease.residence.note


def _allow(changes: dict[str, object], fields: frozenset[str]) -> None:
    strange = sorted(changes.keys() - fields)
    if strange:
        raise TypeError(
            f"cannot change {', '.join(strange)}; only {', '.join(sorted(fields))}"
        )
