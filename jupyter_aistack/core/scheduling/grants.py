"""How a request that fits is granted, and until when."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    Conditions,
    new_condition,
)
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.plan import Grant, grant_to_lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.verdict import PlacementFailure

from .capacity_holds import LOAN_SECONDS, CapacityHold, shares_left
from .pass_state import PassState


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a request can have now.

    Attributes:
        slices: where it is placed.
        ends_at: when the lease will end; None for no such end.
        conditions: what its holder should know of that.
    """

    slices: tuple[Slice, ...]
    ends_at: float | None = None
    conditions: Conditions = ()


def offer(state: PassState, request: Request) -> Offer | PlacementFailure:
    """What a request can have now, or why it can have nothing.

    A request without an end of its own that would run into a reservation is lent its
    capacity until that begins.
    """
    verdict = state.verdict(request)
    if not isinstance(verdict, PlacementFailure):
        return Offer(slices=verdict, ends_at=_own_end(request, state.now))
    if request.lease_seconds is not None:
        return verdict

    reservation = _next_reservation(state, request)
    if reservation is None:
        return verdict
    seconds = reservation.starts_at - state.now
    if seconds < LOAN_SECONDS:
        return verdict
    lent = state.verdict(replace(request, lease_seconds=seconds))
    if isinstance(lent, PlacementFailure):
        return verdict
    message = f"lent until the reservation {reservation.name!r} begins"
    note = new_condition(ConditionKind.NOTE, message, state.now)
    return Offer(slices=lent, ends_at=reservation.starts_at, conditions=(note,))


def _own_end(request: Request, now: float) -> float | None:
    if request.lease_seconds is None:
        return None
    return now + request.lease_seconds


def _next_reservation(state: PassState, request: Request) -> CapacityHold | None:
    """The first reservation to come that a lease without an end would run into."""
    coming = [
        hold
        for hold in state.holds
        if _is_to_come(hold, state.now) and hold.applies_to(request, state.now)
    ]
    return min(coming, key=lambda hold: hold.starts_at, default=None)


def _is_to_come(hold: CapacityHold, now: float) -> bool:
    return bool(hold.name) and hold.starts_at > now


def grant(
    state: PassState, request: Request, offered: Offer, *, ttl_seconds: float
) -> None:
    """Grant a request what it was offered, and account for it everywhere."""
    slices = offered.slices
    action = Grant(
        request=request,
        slices=slices,
        expires_at=state.now + ttl_seconds,
        ends_at=offered.ends_at,
        conditions=offered.conditions,
        residence=state.placement.residence(request, slices),
    )
    state.actions.append(action)
    state.decided.add(request.id)
    state.placement.add(request, slices)
    state.capacity.allocate(slices, request.holder.user)
    state.held.append(grant_to_lease(action, "", 0, state.now))
    state.fair_share.charge(
        request.queue, request.holder.user, equivalents(slices), len(slices)
    )
    _use_reservation(state, request, slices)


def _use_reservation(
    state: PassState, request: Request, slices: tuple[Slice, ...]
) -> None:
    """What a member of a running reservation is granted is no longer held for the
    others of it.
    """
    size = equivalents(slices)
    for number, hold in enumerate(state.holds):
        if hold.is_for_members(request.queue, state.now):
            left = shares_left(hold.shares, size, slices)
            state.holds[number] = replace(hold, shares=left)
