"""Capacity that is held: for a reservation, for the head of the queue, for
a request for which leases are being preempted or suspended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.placement.placement import NOTHING_KEPT, Capacity
from jupyter_aistack.core.placement.tenants import EXCLUDED
from jupyter_aistack.core.placement.verdict import PlacementFailure

from .lease_ends import ends_at

BACKFILL_SECONDS = 3600.0
"""How long a request may be passed by others when it is not known when it can start."""
LOAN_SECONDS = 600.0
"""The shortest time worth granting before a reservation begins."""

Shares = Mapping[str, Fraction]
"""Shares of devices by device id."""


@dataclass(frozen=True, kw_only=True)
class CapacityHold:
    """Shares of devices that are not for everybody between two moments.

    Attributes:
        shares: by device id.
        starts_at, ends_at: from when to when, in seconds since the epoch.
        queue: leases of this queue may use it; empty for a hold that belongs to one
            request.
        name: the reservation's name; empty for a request's.
        user: whose request it is for; empty for a reservation.
        sole: the devices of which nobody else may have anything then.
    """

    shares: Shares
    starts_at: float
    ends_at: float = math.inf
    queue: str = ""
    name: str = ""
    user: str = ""
    sole: frozenset[str] = frozenset()

    def shares_for(self, user: str) -> Shares:
        """What is held before a user: all of the devices that are another's alone."""
        if not self.sole or user == self.user:
            return self.shares
        return {**self.shares, **dict.fromkeys(self.sole, EXCLUDED)}

    def applies_to(self, request: Request, now: float) -> bool:
        """Whether a lease for `request` that began now would be in its way."""
        if self.queue and request.queue == self.queue:
            return False
        end = math.inf if request.lease_seconds is None else now + request.lease_seconds
        return now < self.ends_at and end > self.starts_at

    def blocks(self, request: Request, now: float) -> bool:
        """Whether it is a reservation whose capacity `request` cannot have now, not
        even lent until it begins.
        """
        if not self.name or not self.applies_to(request, now):
            return False
        return request.lease_seconds is not None or self.starts_at < now + LOAN_SECONDS

    def is_for_members(self, queue: str, now: float) -> bool:
        """Whether it is a running reservation whose members are those of `queue`."""
        return bool(self.queue) and self.queue == queue and self.starts_at <= now


def head_kind(request: Request, when_idle: Sequence[Slice]) -> tuple[str, SliceKind]:
    """The kind of devices for whose first waiting request capacity is held.

    Args:
        request: the request.
        when_idle: where it would go if nothing were held.
    """
    is_cpu = when_idle[0].kind is SliceKind.CPU
    return request.holder.host, SliceKind.CPU if is_cpu else SliceKind.GPU


def held_for_others(
    holds: Iterable[CapacityHold], request: Request, now: float
) -> Shares:
    """The shares that a lease for `request`, from now on, must leave alone."""
    user = request.holder.user
    shares = sum_shares(
        hold.shares_for(user) for hold in holds if hold.applies_to(request, now)
    )
    return shares or NOTHING_KEPT


def sum_shares(parts: Iterable[Shares]) -> dict[str, Fraction]:
    """Shares added up by device."""
    total: dict[str, Fraction] = {}
    for shares in parts:
        for device_id, share in shares.items():
            total[device_id] = total.get(device_id, Fraction(0)) + share
    return total


def reservation_holds(
    reservations: Iterable[Reservation],
    capacity: Capacity,
    leases: Sequence[Lease],
    now: float,
) -> tuple[CapacityHold, ...]:
    """What reservations hold: placed where there will be capacity when their window
    begins, less what members hold already.

    Args:
        capacity: what is free now; it is left as it is.
        leases: what is held now.
    """
    holds: list[CapacityHold] = []
    for reservation in reservations:
        window = reservation.window(now)
        if window is None:
            continue
        then = _capacity_at(window, capacity, leases, holds, now)
        missing = reservation.count - _members(reservation, leases, window, now)
        shares = _claim(reservation, then, missing)
        if shares:
            hold = CapacityHold(
                shares=shares,
                starts_at=window[0],
                ends_at=window[1],
                queue=reservation.queue,
                name=reservation.name,
            )
            holds.append(hold)
    return tuple(holds)


def _capacity_at(
    window: tuple[float, float],
    capacity: Capacity,
    leases: Sequence[Lease],
    holds: Iterable[CapacityHold],
    now: float,
) -> Capacity:
    """What will be free in a window, beside what earlier reservations hold then."""
    starts_at, end = window
    then = capacity.copy()
    if starts_at > now:
        # What ends before the window begins, or must give way, is not in its way.
        for lease in leases:
            if lease.preemptible or ends_at(lease) <= starts_at:
                then.release(lease.occupied, lease.holder.user)
    for hold in holds:
        if hold.starts_at < end and starts_at < hold.ends_at:
            for device_id, share in hold.shares.items():
                then.hold(device_id, share)
    return then


def _members(
    reservation: Reservation,
    leases: Sequence[Lease],
    window: tuple[float, float],
    now: float,
) -> int:
    """How many leases use a reservation whose window has begun."""
    if window[0] > now:
        return 0
    return sum(lease.queue == reservation.queue for lease in leases)


def _claim(
    reservation: Reservation, capacity: Capacity, count: int
) -> dict[str, Fraction]:
    """The shares that `count` slices of a reservation take, as far as they fit."""
    claimed: list[Slice] = []
    for _ in range(max(0, count)):
        slices = capacity.place(reservation.spec, host=reservation.host)
        if isinstance(slices, PlacementFailure):
            break
        capacity.allocate(slices)
        claimed += slices
    return sum_shares({slice_.device_id: slice_.fraction} for slice_ in claimed)


def shares_left(
    shares: Shares, size: Fraction, slices: Sequence[Slice]
) -> dict[str, Fraction]:
    """What is still held after slices of `size` were used: first on their own devices,
    then wherever it is.
    """
    left = dict(shares)
    own = [slice_.device_id for slice_ in slices]
    for device_id in [*own, *sorted(shares)]:
        used = min(size, left.get(device_id, Fraction(0)))
        size -= used
        if used:
            left[device_id] -= used
    return {device_id: share for device_id, share in left.items() if share}
