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
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.core.scheduling.lease_ends import after_pause

from .apply_plan import keep_residence, touch
from .device_transactions import DeviceTransactions
from .drain_transactions import DrainTransactions
from .history_transactions import HistoryTransactions
from .host_transactions import HostTransactions
from .lease_steps import advance_lease, step_lease
from .plan_transactions import PlanTransactions
from .request_transactions import RequestTransactions
from .reservation_transactions import ReservationTransactions
from .rows import (
    Rows,
    find_lease,
    guarded_lease,
    is_id,
    keep_conditions,
    lease_event,
    live_lease,
)
from .state import LedgerState
from .transactions import within
from .usage_transactions import UsageTransactions

STEP_FIELDS = frozenset({"holder", "enforced_by", "verified"})
BIND_FIELDS = frozenset({"holder", "enforced_by", "active_at", "notice"})


class TransactionalLedger(
    RequestTransactions,
    PlanTransactions,
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
            half_life = self.half_life_seconds
            lease = guarded_lease(rows, lease_id, token)
            return step_lease(rows, lease, step, now, half_life, changes, conditions)

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
        half_life = self.half_life_seconds
        kept = keep_residence(rows, lease, after, now)
        if after.phase is StatePhase.PARKED and kept.state is LeaseState.ACTIVE:
            return advance_lease(rows, kept, LeaseTransition.SUSPEND, now, half_life)
        if after.phase is StatePhase.RESIDENT and kept.state is LeaseState.SUSPENDED:
            return advance_lease(rows, kept, LeaseTransition.RESUME, now, half_life)
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


def _allow(changes: dict[str, object], fields: frozenset[str]) -> None:
    strange = sorted(changes.keys() - fields)
    if strange:
        raise TypeError(
            f"cannot change {', '.join(strange)}; only {', '.join(sorted(fields))}"
        )
