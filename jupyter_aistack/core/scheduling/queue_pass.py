"""The walk along the queue: who is granted what, who is asked back, who is kept room
for.

In the order of :mod:`.order`, each request is granted if it fits. The first that does
not is kept room for where it can start earliest, and those behind it may pass only if
they are done by then or use other room: EASY backfilling (Lifka, JSSPP 1995), once for
each kind of device. A request that goes before holders of preemptible leases has them
asked back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from operator import attrgetter

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    Conditions,
    new_condition,
)
from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease, Notice, NoticeKind
from jupyter_aistack.core.model.plan import (
    Action,
    Grant,
    Notify,
    Reject,
    Snapshot,
    grant_to_lease,
)
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import Capacity, PlacementFailure
from jupyter_aistack.core.suspend.model import SuspendCandidate
from jupyter_aistack.core.suspend.placement import (
    PlacementVerdict,
    ResumePlacement,
    after_moves,
    begun,
)
from jupyter_aistack.core.suspend.transfers import TransferPlan
from jupyter_aistack.core.suspend.victims import below_limits, parking
from jupyter_aistack.exceptions import AcquireTimeout, QuotaExceeded

from .capacity_holds import (
    BACKFILL_SECONDS,
    LOAN_SECONDS,
    CapacityHold,
    ReleaseTimes,
    kept_for_others,
    reserved,
    start_beside,
)
from .demand_value import demand_value
from .fair_share import FairShare
from .preemption import preemption
from .queue_order import QueueOrder, RequestGroup, group_requests


def decide(
    snapshot: Snapshot,
    held: Sequence[Lease],
    now: float,
    *,
    ttl_seconds: float,
    moves: TransferPlan | None = None,
) -> list[Action]:
    """What happens to the waiting at `now`, given the leases that stay, and what moves
    of theirs have begun.
    """
    if not snapshot.requests:
        return []
    return QueuePass(snapshot, held, now, ttl_seconds=ttl_seconds, moves=moves).run()


class QueuePass:
    """The state of one walk along the queue.

    Args:
        snapshot: what there is.
        held: the leases that stay.
        now: seconds since the epoch.
        ttl_seconds: how long a lease lives unless renewed.
        moves: who may be suspended for others; None where nobody may be.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        held: Sequence[Lease],
        now: float,
        *,
        ttl_seconds: float,
        moves: TransferPlan | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.now = now
        self.ttl_seconds = ttl_seconds
        self.moves = moves
        self.lodging = ResumePlacement(snapshot, moves, now)
        self.held = list(held)
        self.room = Capacity(
            snapshot.inventory, (piece for lease in held for piece in lease.occupied)
        )
        self.standing = FairShare(
            snapshot.policy,
            snapshot.inventory,
            held,
            snapshot.accounts,
            snapshot.reservations,
            now,
        )
        self.actions: list[Action] = []
        self._preemptible = tuple(lease for lease in held if lease.preemptible)
        self._idle_room: Capacity | None = None
        self._when_idle: dict[tuple[object, str], PlacementVerdict] = (
            snapshot.inventory.known.setdefault("when idle", {})
        )
        self._decided: set[str] = set()
        self._made_room: dict[str, CapacityHold] = {}
        self._asked_back: set[str] = set()
        self._asked_for: set[str] = set()
        self._to_come: Capacity | None = None
        self._leaving: set[str] = set()
        self._coming: set[str] = set()
        self._has_parked = True
        self._start_pass()

    def _start_pass(self) -> None:
        if (
            self._has_parked
        ):  # places in the room to come are given anew, as the next plan will give them
            self._has_parked = False
            self._to_come = None
            self._made_room = {}
            self._leaving = {
                one.id
                for one in self.held
                if one.residence and one.residence.phase is StatePhase.PARKING
            }
        self.standing.forget_promises()
        self._full: dict[tuple[object, ...], str] = {}
        self._heads: set[tuple[str, SliceKind]] = set()
        self.keeps = list(
            reserved(self.snapshot.reservations, self.room, self.held, self.now)
        )
        self._reserved_queues = {keep.queue for keep in self.keeps}

    def run(self) -> list[Action]:
        """All actions.

        Who is granted something stands back, who is turned away needs no room kept, and
        who had leases asked back goes
        first, so that others may go in the next pass: passes are made until one does
            nothing, and the plan after this
        one has nothing left to do.
        """
        waiting = sorted(self.snapshot.requests, key=attrgetter("submitted_at", "id"))
        if self.snapshot.dead:
            waiting = self._without_dead(waiting)
        while True:
            groups = self._groups(waiting, self._promised())
            before = len(self.actions)
            if self.room.worth is None and groups:
                self.room.worth = demand_value(self.room, self.held, groups)
            self._serve_all(groups)
            self._turn_impatient_away(groups)
            if len(self.actions) == before:
                return self.actions
            waiting = [
                request for request in waiting if request.id not in self._decided
            ]
            self._start_pass()

    def _promised(self) -> frozenset[str]:
        """The requests for which leases have been asked back: what is made free is
        theirs, whoever came since.
        """
        notices = (lease.notice for lease in self.snapshot.leases)
        before = {
            notice.request_id
            for notice in notices
            if notice and notice.kind is NoticeKind.PREEMPT
        }
        return frozenset(before | self._asked_for)

    def _groups(
        self, waiting: Sequence[Request], promised: frozenset[str]
    ) -> list[RequestGroup]:
        if not promised:
            return group_requests(waiting)
        groups = group_requests(
            request for request in waiting if request.id not in promised
        )
        first = [
            group
            for request in waiting
            if request.id in promised
            for group in group_requests([request])
        ]
        for group in first:
            group.goes_first = True
        return [*first, *groups]

    def _without_dead(self, waiting: list[Request]) -> list[Request]:
        for request in waiting:
            if request.id in self.snapshot.dead:
                self.actions.append(
                    Reject(request_id=request.id, reason="its process has ended")
                )
        return [request for request in waiting if request.id not in self.snapshot.dead]

    def _serve_all(self, groups: Sequence[RequestGroup]) -> None:
        order = QueueOrder(groups, self.standing)
        while (group := order.pick()) is not None:
            group.why = self._full.get(self._shape(group), "")
            if group.why:
                order.drop(group)
            else:
                self._serve(group, order)

    def _serve(self, group: RequestGroup, order: QueueOrder) -> None:
        request = group.head
        when_idle = self.when_idle(request)
        if isinstance(when_idle, PlacementFailure) and when_idle.never:
            self._reject(group, when_idle.reason, when_idle.never)
            order.drop(group)
            return
        size, slices = _size(when_idle)
        never = self.standing.never(request, size, slices)
        if never:
            self._reject(group, never, QuotaExceeded.__name__)
            order.drop(group)
            return
        limit = self.standing.limit(request, size, slices)
        if limit is not None:
            group.why = limit.reason
            self._suspend_own(request, size)
            order.drop(group)
            return
        verdict, ends_at, conditions = self._place(request)
        if not isinstance(verdict, PlacementFailure):
            self._grant(request, verdict, ends_at, conditions)
            order.advance(group)
            return
        group.why = verdict.reason
        if self._is_making_room(request, size):
            self.standing.promise(request.queue, request.holder.user, size, slices)
            order.advance(group)
            return
        self._keep_room(request)
        self._full[self._shape(group)] = verdict.reason
        order.drop(group)

    def _shape(self, group: RequestGroup) -> tuple[object, ...]:
        """Whose answer is the same: a shape that did not fit fits nobody else in this
        walk.

        Queues differ where they have reservations, in whose leases they may ask back,
        and in who may be suspended.
        """
        differs = self._preemptible or group.queue in self._reserved_queues
        return (
            group.shape,
            group.queue if differs or self.moves else "",
            group.head.holder.kind if self.moves else "",
        )

    # -- placing -----------------------------------------------------------------------

    def when_idle(self, request: Request) -> PlacementVerdict:
        """Where a request would go if nothing were held."""
        key = (request.spec, request.holder.host)
        if key not in self._when_idle:
            self._idle_room = self._idle_room or self.room.emptied()
            self._when_idle[key] = self._idle_room.place(
                request.spec, host=request.holder.host
            )
        return self._when_idle[key]

    def _place(
        self, request: Request
    ) -> tuple[PlacementVerdict, float | None, Conditions]:
        """Slices, when the lease ends, and what its holder should know of that.

        One without an end of its own that would run into a reservation is lent the room
        until that begins.
        """
        ends_at = (
            None if request.lease_seconds is None else self.now + request.lease_seconds
        )
        verdict = self.verdict(request)
        if (
            not isinstance(verdict, PlacementFailure)
            or request.lease_seconds is not None
        ):
            return verdict, ends_at, ()
        coming = [
            k
            for k in self.keeps
            if k.name and k.starts_at > self.now and k.concerns(request, self.now)
        ]
        if not coming:
            return verdict, ends_at, ()
        first = min(coming, key=lambda keep: keep.starts_at)
        seconds = first.starts_at - self.now
        lent = (
            self.verdict(replace(request, lease_seconds=seconds))
            if seconds >= LOAN_SECONDS
            else verdict
        )
        if isinstance(lent, PlacementFailure):
            return verdict, ends_at, ()
        message = f"lent until the reservation {first.name!r} begins"
        note = new_condition(ConditionKind.NOTE, message, self.now)
        return lent, first.starts_at, (note,)

    def verdict(self, request: Request) -> PlacementVerdict:
        """Where a request goes now; or why it does not."""
        kept = kept_for_others(self.keeps, request, self.now) if self.keeps else {}
        if request.queue in self._reserved_queues:
            kept = self._beside_its_own(kept, request.queue)
        return self.lodging.place(self.room, request, kept)

    def _beside_its_own(
        self, kept: Mapping[str, Fraction], queue: str
    ) -> Mapping[str, Fraction]:
        """What must be left alone by a queue whose reservation runs: nobody else is
        kept what is reserved for it.
        """
        own: dict[str, Fraction] = {}
        for keep in self.keeps:
            if keep.queue == queue and keep.starts_at <= self.now:
                for device_id, share in keep.shares.items():
                    own[device_id] = own.get(device_id, Fraction(0)) + share
        most = {
            device_id: max(Fraction(0), self.room.share(device_id) - share)
            for device_id, share in own.items()
        }
        return {
            device_id: min(share, most.get(device_id, share))
            for device_id, share in kept.items()
        }

    def start(
        self, request: Request, ends: ReleaseTimes
    ) -> tuple[float, dict[str, Fraction]]:
        """When there will be room for a request as far as is known, and on which
        devices; see `start_of`.
        """
        return start_beside(
            self._shut_for(request, self.now),
            request.spec,
            self.room,
            ends,
            self.now,
            host=request.holder.host,
        )

    def _shut_for(self, request: Request, at: float) -> list[CapacityHold]:
        """The reservations whose room a request cannot have at a time."""
        return [keep for keep in self.keeps if keep.blocks(request, at)]

    def _grant(
        self,
        request: Request,
        slices: tuple[Slice, ...],
        ends_at: float | None,
        conditions: Conditions,
    ) -> None:
        expires_at = self.now + self.ttl_seconds
        residence = self.lodging.residence(request, slices)
        grant = Grant(
            request=request,
            slices=slices,
            expires_at=expires_at,
            ends_at=ends_at,
            conditions=conditions,
            residence=residence,
        )
        self.actions.append(grant)
        self.lodging.settle(request, slices)
        self._decided.add(request.id)
        self.room.take(slices)
        if self._to_come is not None:
            self._to_come.take(slices)
        self.held.append(grant_to_lease(grant, "", 0, self.now))
        self.standing.charge(
            request.queue, request.holder.user, equivalents(slices), len(slices)
        )
        self._use_reservation(request, slices)

    def _use_reservation(self, request: Request, slices: Sequence[Slice]) -> None:
        """What a member of a running reservation was granted is no longer kept for the
        others of it.
        """
        for number, keep in enumerate(self.keeps):
            if (
                keep.queue
                and keep.queue == request.queue
                and keep.starts_at <= self.now
            ):
                self.keeps[number] = replace(
                    keep, shares=_less(keep.shares, equivalents(slices), slices)
                )

    # -- those that do not fit ---------------------------------------------------------

    def _is_making_room(self, request: Request, size: Fraction) -> bool:
        """Whether room is being made for a request by leases that have been, or are
        now, suspended or asked back.
        """
        keep = self._made_room.get(request.id) or self._in_room_to_come(request)
        if keep is None and self.moves is not None and self.moves.is_full:
            return False
        keep = keep or self._suspend_others(request) or self._ask_back(request, size)
        if keep is None:
            return False
        self._made_room[request.id] = keep
        if request.id not in self._coming:
            self._coming.add(request.id)
            self.standing.come(request.queue, size)
        self.keeps.append(keep)
        return True

    def _in_room_to_come(self, request: Request) -> CapacityHold | None:
        """A place in what will be free when notices are over and states have moved out,
        first come first served.
        """
        if self._to_come is None:
            going = [
                lease
                for lease in self.held
                if _is_asked_back(lease) or lease.id in self._leaving
            ]
            if not going:
                return None
            self._to_come = self._room_without(going)
        return self._place_in(self._to_come, request, self.now, self.keeps)

    def _suspend_others(self, request: Request) -> CapacityHold | None:
        """Have idle leases suspended, least recently used first, so that a request fits
        once they have left.
        """
        if self.moves is None:
            return None
        going = self._leaving | {
            lease.id for lease in self.held if _is_asked_back(lease)
        }
        idle = [tenant for tenant in self.moves.idle() if tenant.lease_id not in going]
        room = self._to_come or self.room
        slices = {lease.id: lease.occupied for lease in self.held} if idle else {}
        victims = parking(
            request,
            self._open_room(request, self.now, room),
            idle,
            slices,
            self.moves.moving,
        )
        if not victims or not self.moves.would_fit_host(victims):
            return None
        gone = {tenant.lease_id for tenant in victims}
        leases = [lease for lease in self.held if lease.id in gone]
        to_come = room.copy()
        to_come.give(piece for lease in leases for piece in lease.occupied)
        keeps = self._reserved_in(to_come, leases, self.now)
        keep = self._place_in(to_come, request, self.now, keeps, parked=victims)
        if keep is None:
            return None  # those who are suspended could not come back beside it
        self._to_come = to_come
        self._leaving = self._leaving | gone
        self._make_way(victims, leases)
        return keep

    def _suspend_own(self, request: Request, size: Fraction) -> None:
        """Have idle leases of a queue, or of a user, suspended that keep a request of
        theirs above a limit.
        """
        excess = self.standing.excess(request, size)
        if self.moves is None or self.moves.is_full or not any(excess):
            return
        leases = {lease.id: lease for lease in self.held}
        idle = [one for one in self.moves.idle() if one.lease_id not in self._leaving]
        leaving = [
            leases[lease_id] for lease_id in sorted(self._leaving & leases.keys())
        ]
        victims = below_limits(
            request,
            excess,
            leaving,
            [leases[one.lease_id] for one in idle if one.lease_id in leases],
        )
        gone = {lease.id for lease in victims}
        self._leaving |= gone
        self._make_way([one for one in idle if one.lease_id in gone], victims)

    def _make_way(
        self, victims: Sequence[SuspendCandidate], leases: Sequence[Lease]
    ) -> None:
        assert self.moves is not None
        before = len(self.moves.operations)
        self.moves.free_device(victims)
        begin = list(begun(self.moves.operations[before:], leases))
        self.actions.extend(begin)
        self._has_parked = self._has_parked or bool(begin)
        self.held = after_moves(begin, self.held)

    def _place_in(
        self,
        to_come: Capacity,
        request: Request,
        at: float,
        keeps: Iterable[CapacityHold],
        *,
        ended: Iterable[Lease] = (),
        parked: Iterable[SuspendCandidate] = (),
    ) -> CapacityHold | None:
        """Take a place in room that will be free; None when there is none, or when
        reservations shut it `at` a time.
        """
        kept = kept_for_others(
            (keep for keep in keeps if keep.blocks(request, at)), request, at
        )
        gone = [lease.id for lease in (*ended, *filter(_is_asked_back, self.held))]
        slices = self.lodging.place_later(
            to_come, request, kept, ended=gone, parked=parked
        )
        if isinstance(slices, PlacementFailure):
            return None
        to_come.take(slices)
        return CapacityHold(
            shares={piece.device_id: piece.fraction for piece in slices},
            starts_at=self.now,
        )

    def _room_without(self, leases: Sequence[Lease]) -> Capacity:
        room = self.room.copy()
        room.give(piece for lease in leases for piece in lease.occupied)
        return room

    def _ask_back(self, request: Request, size: Fraction) -> CapacityHold | None:
        patience = request.patience_seconds
        then = self.now + self.snapshot.policy.notice_seconds
        if patience is not None and request.submitted_at + patience < then:
            return None  # it would be gone before the room is there
        untouched = [
            lease
            for lease in self._preemptible
            if lease.id not in self._asked_back | self._leaving
        ]
        victims = preemption(
            request, size, self._open_room(request, then), untouched, self.standing
        )
        if not victims:
            return None
        to_come = (self._to_come or self.room).copy()
        to_come.give(piece for lease in victims for piece in lease.occupied)
        keep = self._place_in(
            to_come,
            request,
            then,
            self._reserved_in(to_come, victims, then),
            ended=victims,
        )
        if keep is None:
            return None  # what it needs beside devices would still be missing
        self._to_come = to_come
        self._notify(request, victims)
        return keep

    def _reserved_in(
        self, to_come: Capacity, victims: Sequence[Lease], at: float
    ) -> Iterable[CapacityHold]:
        """What reservations will keep of room to come: more than now, where leases were
        in their way.
        """
        gone = self._asked_back | {lease.id for lease in victims}
        staying = [
            lease
            for lease in self.held
            if lease.id not in gone and not _is_asked_back(lease)
        ]
        return reserved(self.snapshot.reservations, to_come, staying, at)

    def _notify(self, request: Request, victims: Sequence[Lease]) -> None:
        ends_at = self.now + self.snapshot.policy.notice_seconds
        notice = Notice(
            kind=NoticeKind.PREEMPT, at=self.now, ends_at=ends_at, request_id=request.id
        )
        for lease in victims:
            self.standing.leave(lease.queue, equivalents(lease.slices))
            detail = (
                f"{request.spec} is needed in queue {request.queue}, which goes first"
            )
            self.actions.append(
                Notify(
                    lease_id=lease.id, token=lease.token, notice=notice, detail=detail
                )
            )
        asked = {lease.id for lease in victims}
        self._asked_for.add(request.id)
        self._asked_back |= asked
        self.held = [
            replace(lease, notice=notice) if lease.id in asked else lease
            for lease in self.held
        ]
        if self.moves is not None:
            self._make_way(
                self.moves.asked_back(asked), victims
            )  # who is idle need not wait for its end

    def _open_room(
        self, request: Request, at: float, room: Capacity | None = None
    ) -> Capacity:
        """What is free, or `room` that will be, less what reservations keep from a
        request at a time.
        """
        shut = kept_for_others(self._shut_for(request, at), request, at)
        room = room or self.room
        if not shut:
            return room
        room = room.copy()
        for device_id, share in shut.items():
            room.hold(device_id, share)
        return room

    def _keep_room(self, request: Request) -> None:
        """The first of its kind that does not fit gets the room where it can start
        earliest.
        """
        answer = self.when_idle(request)
        if isinstance(answer, PlacementFailure):
            return  # it waits for a device that does not answer, or for strangers: others need not wait with it
        kind = SliceKind.CPU if answer[0].kind is SliceKind.CPU else SliceKind.GPU
        head = (request.holder.host, kind)
        if head in self._heads:
            return
        self._heads.add(head)
        start, shares = self.start(request, ReleaseTimes(self.held))
        if math.isinf(start):
            start = self.now + BACKFILL_SECONDS
        self.keeps.append(CapacityHold(shares=shares, starts_at=start))

    def _reject(self, group: RequestGroup, reason: str, code: str) -> None:
        self.actions.extend(
            Reject(request_id=request.id, reason=reason, code=code)
            for request in group.rest
        )
        self._decided.update(request.id for request in group.rest)

    def _turn_impatient_away(self, groups: Sequence[RequestGroup]) -> None:
        for group in groups:
            for request in group.impatient:
                waited = self.now - request.submitted_at
                patience = request.patience_seconds
                if (
                    patience is not None
                    and waited >= patience
                    and request.id not in self._decided
                ):
                    late = f"{group.why or 'others go first'}; it was not to wait any longer"
                    self.actions.append(
                        Reject(
                            request_id=request.id,
                            reason=late,
                            code=AcquireTimeout.__name__,
                        )
                    )
                    self._decided.add(request.id)


def _is_asked_back(lease: Lease) -> bool:
    return lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT


def _size(verdict: PlacementVerdict) -> tuple[Fraction, int]:
    """Device equivalents and number of slices; nothing for one that has no place now
    though it could.
    """
    return (
        (Fraction(0), 0)
        if isinstance(verdict, PlacementFailure)
        else (equivalents(verdict), len(verdict))
    )


def _less(
    shares: Mapping[str, Fraction], size: Fraction, slices: Sequence[Slice]
) -> dict[str, Fraction]:
    """What is still kept after slices of `size` were used: first on their own devices,
    then wherever it is.
    """
    left = dict(shares)
    for device_id in [*(piece.device_id for piece in slices), *sorted(shares)]:
        used = min(size, left.get(device_id, Fraction(0)))
        size -= used
        if used:
            left[device_id] -= used
    return {device_id: share for device_id, share in left.items() if share}
