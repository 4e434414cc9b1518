"""The forecast for waiting requests: their position, why they wait, and when they are
likely to be served.

None of this is stored: it is computed on demand, from the same order and the
same capacity as a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.units import format_about, format_bytes
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.core.suspend.build import build_suspend_input, start_transfers

from .capacity_holds import BACKFILL_SECONDS, CapacityHold, Shares, head_kind
from .idle import NAMED_SECONDS, idle_seconds
from .lease_ends import ends_at
from .pass_state import PassState, size_of
from .queue_order import ordered, preempted_for, promised_first
from .queue_pass import OUTRANKED
from .reasons import Reason, expected, public, why_drained
from .spec_words import describe
from .start_times import ReleaseTimes, Start


@dataclass(frozen=True, kw_only=True)
class QueuedForecast:
    """A request that waits, as its owner should see it.

    Attributes:
        request: the request.
        position: 1 is served next.
        eta_at: when it is likely to be granted, in seconds since the epoch; None when
            that is unknown.
        reason: why it waits, in one sentence; it may name other users.
        public_reason: the same without names of others.
    """

    request: Request
    position: int
    eta_at: float | None
    reason: str
    public_reason: str


@dataclass(frozen=True, kw_only=True)
class _Head:
    """A request for which capacity is held though its start is not known."""

    request: Request
    hold: CapacityHold


def forecast(
    snapshot: Snapshot,
    now: float,
    *,
    limit: int = 100,
    cache: PlacementCache | None = None,
) -> tuple[QueuedForecast, ...]:
    """The waiting requests, first served first; those behind the first `limit` get
    their position and no more.

    An ETA supposes that leases end when they are known to (their time, a notice) and no
    sooner, and that no new request comes before: so it is the latest that can be
    promised, and there is none where a lease in the way has no end.
    """
    waiting = [
        request for request in snapshot.requests if request.id not in snapshot.dead
    ]
    if not waiting:
        return ()
    forecaster = _Forecaster(snapshot, now, cache or PlacementCache())
    groups = promised_first(waiting, preempted_for(snapshot.leases))
    order = ordered(groups, forecaster.fair_share)
    return tuple(
        forecaster.forecast(request, position)
        if position <= limit
        else _position_only(request, position)
        for position, request in enumerate(order, 1)
    )


def _position_only(request: Request, position: int) -> QueuedForecast:
    text = f"{position - 1} requests are ahead"
    return QueuedForecast(
        request=request,
        position=position,
        eta_at=None,
        reason=text,
        public_reason=text,
    )


class _Forecaster:
    """Gives each waiting request its place to come, in order.

    Args:
        snapshot: what there is.
        now: seconds since the epoch.
        cache: what is known of the devices from earlier plans.
    """

    def __init__(self, snapshot: Snapshot, now: float, cache: PlacementCache) -> None:
        self._now = now
        self._held = [lease for lease in snapshot.leases if lease.is_live]
        host = build_suspend_input(snapshot, self._held)
        self._state = PassState(
            snapshot,
            self._held,
            now,
            facts=cache.facts(snapshot.inventory),
            transfers=start_transfers(host, snapshot, now),
        )
        self._ends = ReleaseTimes(self._held)
        self._promised = preempted_for(snapshot.leases)
        self._heads: dict[tuple[str, SliceKind], _Head] = {}
        self.fair_share = self._state.fair_share

    def forecast(self, request: Request, position: int) -> QueuedForecast:
        """One request, after those before it have been given their places."""
        size, slices = size_of(self._state.when_idle(request))
        limit = self.fair_share.check_limits(request, size, slices)
        if limit is not None:
            text = f"{limit.reason}{expected(limit.frees_at, self._now)}"
            return QueuedForecast(
                request=request,
                position=position,
                eta_at=limit.frees_at,
                reason=text,
                public_reason=text,
            )

        start = self._state.start(request, self._ends)
        head = self._head_before(request, start)
        if head is not None:
            beside = self._state.start(request, self._ends, [head.hold])
            if math.isinf(beside.at):
                return self._held_back(request, position, head)
            start = beside
        is_known = not math.isinf(start.at)
        reason = self._reason(request, start)
        if request.id in self._promised:
            # As in the pass over the queue: what comes counts against limits already.
            self.fair_share.promise(request.queue, request.holder.user, size, slices)
        if is_known and start.shares:
            self._occupy(request, start)
        elif start.shares:
            self._hold_for_head(request, start)
        return QueuedForecast(
            request=request,
            position=position,
            eta_at=start.at if is_known else None,
            reason=reason.named,
            public_reason=reason.public,
        )

    # -- behind a request whose start is not known -------------------------------------

    def _hold_for_head(self, request: Request, start: Start) -> None:
        """As in the pass over the queue: for the first of its kind capacity is held,
        however long that takes.
        """
        when_idle = self._state.when_idle(request)
        if isinstance(when_idle, PlacementFailure):
            return
        starts_at = self._now + BACKFILL_SECONDS
        hold = self._state.hold_of(request, start.shares, starts_at)
        kind = head_kind(request, when_idle)
        self._heads.setdefault(kind, _Head(request=request, hold=hold))

    def _head_before(self, request: Request, start: Start) -> _Head | None:
        """The request ahead for which the capacity is held that `request` would start
        on; None for none, or where it is done before it is missed.
        """
        for head in self._heads.values():
            is_on_same = not head.hold.shares.keys().isdisjoint(start.shares)
            if is_on_same and head.hold.applies_to(request, self._now):
                return head
        return None

    def _held_back(
        self, request: Request, position: int, head: _Head
    ) -> QueuedForecast:
        wish = f"needs {describe(request.spec, self._state.when_idle(request))}"
        ahead = describe(head.request.spec, self._state.when_idle(head.request))
        holder = head.request.holder
        who = f"{holder.label or holder.id} ({holder.user})"
        back = f"{wish}; held back for"
        rest = "and when that can start is not known"
        return QueuedForecast(
            request=request,
            position=position,
            eta_at=None,
            reason=f"{back} {who}, who is ahead and needs {ahead}, {rest}",
            public_reason=f"{back} a request ahead that needs {ahead}, {rest}",
        )

    def _occupy(self, request: Request, start: Start) -> None:
        """From its start on, those behind it must do without its capacity; a request
        for a certain time gives it back then.
        """
        capacity = self._state.capacity
        for device_id, share in start.shares.items():
            capacity.hold(device_id, share, request.holder.user)
        profile = request.spec.profile
        if request.spec.unit is Unit.PROFILE:
            self._ends.release_to(next(iter(start.shares)), profile, start.at)
        if request.lease_seconds is not None:
            slices = tuple(
                replace(capacity.placeholder(device_id, share), profile=profile)
                for device_id, share in start.shares.items()
            )
            end = start.at + request.lease_seconds
            lease = Lease(
                id="",
                token=0,
                request_id=request.id,
                spec=request.spec,
                holder=request.holder,
                slices=slices,
                granted_at=start.at,
                expires_at=end,
                ends_at=end,
            )
            self._ends.add(lease)

    # -- why ---------------------------------------------------------------------------

    def _reason(self, request: Request, start: Start) -> Reason:
        """Why a request waits: the first explanation that applies."""
        wish = f"needs {describe(request.spec, self._state.when_idle(request))}"
        for explain in (
            self._why_preempting,
            self._why_suspending,
            self._why_drained,
            self._why_unknown,
            self._why_reserved,
            self._why_now,
        ):
            reason = explain(request, start, wish)
            if reason is not None:
                return reason
        return self._why_held(start, wish)

    def _why_preempting(
        self, request: Request, start: Start, wish: str
    ) -> Reason | None:
        """Leases are being preempted for it."""
        ends = [
            ends_at(lease)
            for lease in self._held
            if lease.notice and lease.notice.request_id == request.id
        ]
        if not ends:
            return None
        when = format_about(max(ends) - self._now)
        return public(
            f"{wish}; capacity is being freed for it, in {when} at the latest"
        )

    def _why_suspending(
        self, request: Request, start: Start, wish: str
    ) -> Reason | None:
        """A lease is being suspended on a device that could hold it."""
        leaving = [lease for lease in self._held if _is_being_suspended(lease)]
        first = self._first_on_able(request, leaving)
        if first is None or not isinstance(
            self._state.verdict(request), PlacementFailure
        ):
            return None

        size = format_bytes(_gpu_memory_bytes(first))
        holder = first.holder
        who = f"{holder.label or holder.id} ({holder.user})"
        return Reason(
            f"{wish}; waits for {who} to be suspended: {size}",
            f"{wish}; waits for an idle kernel to be suspended: {size}",
        )

    def _first_on_able(self, request: Request, leases: Iterable[Lease]) -> Lease | None:
        """The first of these leases that is on a device which could hold a request."""
        sizes = self._state.capacity.needs(request.spec, request.holder.host)
        able = {device_id for by_device in sizes.values() for device_id in by_device}
        return next((lease for lease in leases if _is_on(lease, able)), None)

    def _why_drained(self, request: Request, start: Start, wish: str) -> Reason | None:
        """A device that has the room is out of placement by hand."""
        return why_drained(request, start, wish, self._state.capacity, self._now)

    def _why_unknown(self, request: Request, start: Start, wish: str) -> Reason | None:
        """It is not known when it can start: what is in the way, and whether that is in
        use at all.
        """
        if start.shares and not math.isinf(start.at):
            return None
        holder = request.holder
        verdict = self._state.capacity.place(
            request.spec, host=holder.host, user=holder.user
        )
        in_the_way = [
            lease
            for lease in self._held
            if _is_on(lease, start.shares) and math.isinf(ends_at(lease))
        ]
        if isinstance(verdict, PlacementFailure) and not in_the_way:
            return public(verdict.reason)

        text = f"{wish}; what is in its way has no end that is known"
        longest = max(in_the_way, key=self._idle_seconds, default=None)
        if longest is None or self._idle_seconds(longest) < NAMED_SECONDS:
            return public(text)
        since = format_about(self._idle_seconds(longest))
        return Reason(
            f"{text}; {longest.holder.user}'s lease has been idle for {since}",
            f"{text}; one lease is idle for {since}",
        )

    def _why_reserved(self, request: Request, start: Start, wish: str) -> Reason | None:
        """It waits for the end of a reservation."""
        for hold in self._state.blocking_holds(request, self._now):
            is_in_the_way = not hold.shares.keys().isdisjoint(start.shares)
            if hold.ends_at == start.at and is_in_the_way:
                when = expected(start.at, self._now)
                return public(
                    f"{wish}; capacity is held for the reservation {hold.name!r}{when}"
                )
        return None

    def _why_now(self, request: Request, start: Start, wish: str) -> Reason | None:
        """There is capacity for it already."""
        if start.at > self._now:
            return None
        if self._state.transfers is not None:
            verdict = self._state.verdict(request)
            if isinstance(verdict, PlacementFailure):
                return public(verdict.reason)
        return public(f"{wish}; it is its turn")

    def _why_held(self, start: Start, wish: str) -> Reason:
        """It waits for a lease to end, or for the requests ahead of it."""
        blocking = [
            lease
            for lease in self._held
            if ends_at(lease) == start.at and _is_on(lease, start.shares)
        ]
        if not blocking:
            return public(f"{wish}; {OUTRANKED}{expected(start.at, self._now)}")
        about = format_about(start.at - self._now)
        when = f"{wish}; the next one frees in about {about} when"
        user = blocking[0].holder.user
        return Reason(f"{when} {user}'s lease ends", f"{when} a lease ends")

    def _idle_seconds(self, lease: Lease) -> float:
        return idle_seconds(lease, self._now) or 0.0


def _is_being_suspended(lease: Lease) -> bool:
    state = lease.residence
    return state is not None and state.phase is StatePhase.PARKING


def _gpu_memory_bytes(lease: Lease) -> int:
    """The memory of a lease on each of its GPUs."""
    return max(
        slice_.memory_bytes
        for slice_ in lease.slices
        if slice_.kind is not SliceKind.CPU
    )


def _is_on(lease: Lease, devices: Iterable[str] | Shares) -> bool:
    wanted = set(devices)
    return any(slice_.device_id in wanted for slice_ in lease.slices)
