"""Capacity that is being freed for requests that do not fit: idle leases are suspended
first, and others preempted where that is not enough.

What is being freed is given away before it is free, first come first served, so that no
two requests count on the same capacity and no lease is ended for a request that will be
served anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease, Notice, NoticeKind
from jupyter_aistack.core.model.plan import Notify
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.core.suspend.model import SuspendCandidate
from jupyter_aistack.core.suspend.placement import transfer_actions, with_transfers
from jupyter_aistack.core.suspend.transfers import TransferPlan
from jupyter_aistack.core.suspend.victims import choose_victims, victims_below_limits

from .capacity_holds import CapacityHold, held_for_others, reservation_holds
from .pass_state import PassState
from .preemption import choose_preempted


class CapacityFreeing:
    """Frees capacity in one pass over the queue.

    Args:
        state: the pass.

    Attributes:
        promised: ids of the requests for which leases have been preempted.
        has_preemptible: whether any lease could be preempted at all.
    """

    def __init__(self, state: PassState) -> None:
        self._state = state
        self._transfers = state.transfers
        self._preemptible = tuple(lease for lease in state.held if lease.preemptible)
        self._preempted = {lease.id for lease in state.held if _is_preempted(lease)}
        self._counted: set[str] = set()
        self.promised: set[str] = set()
        self._reset_places()

    @property
    def has_preemptible(self) -> bool:
        return bool(self._preemptible)

    def start_pass(self) -> None:
        """The queue is gone through again."""
        # Once something was suspended or preempted, places in the capacity to come are
        # given again, as the next plan will give them.
        if self._has_freed:
            self._reset_places()

    def _reset_places(self) -> None:
        self._has_freed = False
        self._to_come: Capacity | None = None
        self._places: dict[str, CapacityHold] = {}
        self._leaving = {lease.id for lease in self._state.held if _is_leaving(lease)}

    def allocate(self, slices: Iterable[Slice], user: str) -> None:
        """Slices were granted to a user: they are not there any more for those who
        wait.
        """
        if self._to_come is not None:
            self._to_come.allocate(slices, user)

    def find_place(self, request: Request, size: Fraction) -> bool:
        """Whether capacity is being freed for a request, by leases that have been, or
        are now, suspended or preempted.

        Args:
            size: the device equivalents it will hold.
        """
        place = self._places.get(request.id) or self._place_in_freed(request)
        if place is None:
            if self._transfers is not None and self._transfers.is_full:
                return False
            place = self._suspend_for(request) or self._preempt_for(request, size)
        if place is None:
            return False

        self._places[request.id] = place
        self._state.holds.append(place)
        if request.id not in self._counted:
            self._counted.add(request.id)
            self._state.fair_share.expect_gain(request.queue, size)
        return True

    def _place_in_freed(self, request: Request) -> CapacityHold | None:
        """A place in what will be free when notices are over and states have moved
        out. None for a preemptible request where leases are being preempted: it may
        preempt nothing, and what it took of that would be preempted for once more.
        """
        if request.preemptible and self._preempted:
            return None
        if self._to_come is None:
            going = self._leaving | self._preempted
            if not going:
                return None
            leases = [lease for lease in self._state.held if lease.id in going]
            self._to_come = _without(
                self._state.capacity, leases, ended=self._preempted
            )
        return self._place_in(
            self._to_come, request, self._state.now, self._state.holds
        )

    def _place_in(
        self,
        to_come: Capacity,
        request: Request,
        at: float,
        holds: Iterable[CapacityHold],
        *,
        ended: Iterable[Lease] = (),
        suspended: Iterable[SuspendCandidate] = (),
    ) -> CapacityHold | None:
        """Take a place in capacity that will be free; None when there is none, or when
        reservations shut it `at` a time.
        """
        blocking = [hold for hold in holds if hold.blocks(request, at)]
        gone = self._preempted | {lease.id for lease in ended}
        slices = self._state.placement.place_later(
            to_come,
            request,
            held_for_others(blocking, request, at),
            ended=gone,
            suspended=suspended,
        )
        if isinstance(slices, PlacementFailure):
            return None
        to_come.allocate(slices, request.holder.user)
        shares = {slice_.device_id: slice_.fraction for slice_ in slices}
        return self._state.hold_of(request, shares, self._state.now)

    # -- by suspending -----------------------------------------------------------------

    def _suspend_for(self, request: Request) -> CapacityHold | None:
        """Have idle leases suspended, least recently used first, so that a request fits
        once they have left.
        """
        state = self._state
        transfers = self._transfers
        if transfers is None:
            return None
        capacity = self._to_come or state.capacity
        victims = self._suspend_victims(request, transfers, capacity)
        if not victims or not transfers.would_fit_host(victims):
            return None

        gone = {victim.lease_id for victim in victims}
        leases = [lease for lease in state.held if lease.id in gone]
        to_come = _without(capacity, leases, ended=())
        holds = self._reservations_in(to_come, leases, state.now)
        place = self._place_in(to_come, request, state.now, holds, suspended=victims)
        if place is None:
            return None  # those who are suspended could not be resumed beside it
        self._to_come = to_come
        self._leaving = self._leaving | gone
        self._suspend(transfers, victims, leases)
        return place

    def _suspend_victims(
        self, request: Request, transfers: TransferPlan, capacity: Capacity
    ) -> tuple[SuspendCandidate, ...]:
        """The idle leases that must leave `capacity` so that a request fits."""
        state = self._state
        idle = self._idle(transfers, self._preempted)
        if not idle:
            return ()
        return choose_victims(
            request,
            state.open_capacity(request, state.now, capacity),
            idle,
            {lease.id: lease.occupied for lease in state.held},
            transfers.moving,
        )

    def suspend_own(self, request: Request, size: Fraction) -> None:
        """Have idle leases of a queue, or of a user, suspended that keep a request of
        theirs above a limit.
        """
        excess = self._state.fair_share.excess(request, size)
        transfers = self._transfers
        if transfers is None or transfers.is_full or not any(excess):
            return
        leases = {lease.id: lease for lease in self._state.held}
        idle = self._idle(transfers, set())
        leaving = sorted(self._leaving & leases.keys())
        victims = victims_below_limits(
            request,
            excess,
            [leases[lease_id] for lease_id in leaving],
            [leases[each.lease_id] for each in idle if each.lease_id in leases],
        )
        gone = {lease.id for lease in victims}
        self._leaving |= gone
        candidates = [candidate for candidate in idle if candidate.lease_id in gone]
        self._suspend(transfers, candidates, victims)

    def _idle(self, transfers: TransferPlan, going: set[str]) -> list[SuspendCandidate]:
        """The leases that could be suspended and do not go already."""
        excluded = self._leaving | going
        return [each for each in transfers.idle() if each.lease_id not in excluded]

    def _suspend(
        self,
        transfers: TransferPlan,
        victims: Sequence[SuspendCandidate],
        leases: Sequence[Lease],
    ) -> None:
        """Begin to move out those of the victims that can go now."""
        before = len(transfers.steps)
        transfers.free_device(victims)
        begun = list(transfer_actions(transfers.steps[before:], leases))
        self._state.actions.extend(begun)
        self._state.held = with_transfers(begun, self._state.held)
        self._has_freed = self._has_freed or bool(begun)

    # -- by preempting -----------------------------------------------------------------

    def _preempt_for(self, request: Request, size: Fraction) -> CapacityHold | None:
        """Give preemptible leases notice, so that a request fits once they end."""
        state = self._state
        then = state.now + state.snapshot.policy.notice_seconds
        patience = request.patience_seconds
        if patience is not None and request.submitted_at + patience < then:
            return None  # it would be gone before the capacity is there

        excluded = self._preempted | self._leaving
        untouched = [lease for lease in self._preemptible if lease.id not in excluded]
        victims = choose_preempted(
            request,
            size,
            state.open_capacity(request, then, state.capacity),
            untouched,
            state.fair_share,
        )
        if not victims:
            return None

        ended = {lease.id for lease in victims}
        to_come = _without(self._to_come or state.capacity, victims, ended=ended)
        holds = self._reservations_in(to_come, victims, then)
        place = self._place_in(to_come, request, then, holds, ended=victims)
        if place is None:
            return None  # what it needs beside devices would still be missing
        self._to_come = to_come
        self._notify(request, victims)
        return place

    def _reservations_in(
        self, to_come: Capacity, victims: Sequence[Lease], at: float
    ) -> Iterable[CapacityHold]:
        """What reservations will hold of capacity to come: more than now, where leases
        were in their way.
        """
        gone = self._preempted | {lease.id for lease in victims}
        staying = [lease for lease in self._state.held if lease.id not in gone]
        return reservation_holds(
            self._state.snapshot.reservations, to_come, staying, at
        )

    def _notify(self, request: Request, victims: Sequence[Lease]) -> None:
        """Notify the holders of leases that these will end for a request."""
        state = self._state
        notice = Notice(
            kind=NoticeKind.PREEMPT,
            at=state.now,
            ends_at=state.now + state.snapshot.policy.notice_seconds,
            request_id=request.id,
        )
        detail = f"{request.spec} is needed in queue {request.queue}, which has higher priority"
        for lease in victims:
            state.fair_share.expect_loss(lease.queue, equivalents(lease.slices))
            notify = Notify(
                lease_id=lease.id, token=lease.token, notice=notice, detail=detail
            )
            state.actions.append(notify)

        preempted = {lease.id for lease in victims}
        self.promised.add(request.id)
        self._has_freed = True
        self._preempted |= preempted
        state.held = [
            replace(lease, notice=notice) if lease.id in preempted else lease
            for lease in state.held
        ]
        # What is idle need not wait for its end: it can be suspended now.
        if self._transfers is not None:
            marked = self._transfers.mark_preempted(preempted)
            self._suspend(self._transfers, marked, victims)


def _without(
    capacity: Capacity, leases: Iterable[Lease], *, ended: Collection[str]
) -> Capacity:
    """A copy of what is free once these leases are gone; those that have not `ended` are
    suspended, and stay their user's place.
    """
    left = capacity.copy()
    for lease in leases:
        left.release(lease.occupied, lease.holder.user if lease.id in ended else "")
    return left


def _is_preempted(lease: Lease) -> bool:
    return lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT


def _is_leaving(lease: Lease) -> bool:
    """Whether its state is being moved out."""
    state = lease.residence
    return state is not None and state.phase is StatePhase.PARKING
