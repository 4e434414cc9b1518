"""Whether a reservation can be kept beside the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.placement.cache import DeviceFacts
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.verdict import PlacementFailure


def conflict(
    new: Reservation, others: Iterable[Reservation], inventory: Inventory
) -> str:
    """Why an idle host could not hold `new` beside those of `others` that share time
    with it; empty when it could.
    """
    at_once = [other for other in others if other.id != new.id and _overlap(new, other)]
    for other in at_once:
        if other.queue == new.queue:
            return f"starts_at: it overlaps the reservation {other.name!r} of the same queue; change one of the two"

    capacity = Capacity(DeviceFacts(inventory))
    for other in at_once:
        _place_all(other, capacity)
    placed = _place_all(new, capacity)
    if placed == new.count:
        return ""
    return _too_much(new, placed, at_once)


def _place_all(reservation: Reservation, capacity: Capacity) -> int:
    """Take the slices of a reservation. Returns how many of them fit."""
    placed = 0
    for _ in range(reservation.count):
        slices = capacity.place(reservation.spec, host=reservation.host)
        if isinstance(slices, PlacementFailure):
            break
        capacity.allocate(slices)
        placed += 1
    return placed


def _too_much(new: Reservation, placed: int, at_once: Sequence[Reservation]) -> str:
    beside = ""
    if at_once:
        beside = f" beside {', '.join(repr(other.name) for other in at_once)}"
    return f"count: {new.count} slices of {new.spec} do not fit this host{beside}; {placed} do"


def _overlap(first: Reservation, second: Reservation) -> bool:
    if first.is_weekly:
        return _overlap_weekly(first, second)
    if second.is_weekly:
        return _overlap_weekly(second, first)
    return first.starts_at < second.ends_at and second.starts_at < first.ends_at


def _overlap_weekly(weekly: Reservation, other: Reservation) -> bool:
    """Whether a reservation that comes again each week overlaps another: the other's
    window is compared with the nearest weeks of it.
    """
    weeks = math.floor((other.starts_at - weekly.starts_at) / WEEK_SECONDS)
    nearest: Iterable[int] = (weeks - 1, weeks, weeks + 1)
    if not other.is_weekly:
        # It does not come before its first week.
        weeks = max(weeks, 0)
        nearest = range(max(weeks - 1, 0), weeks + 2)
    return any(_is_met(weekly, week, other) for week in nearest)


def _is_met(weekly: Reservation, week: int, other: Reservation) -> bool:
    """Whether the window of a week meets another reservation."""
    start = weekly.starts_at + week * WEEK_SECONDS
    end = weekly.ends_at + week * WEEK_SECONDS
    return start < other.ends_at and other.starts_at < end


def rough_size(reservation: Reservation) -> Fraction:
    """Device equivalents of one of its slices; memory and profiles count as a whole
    device, which errs on its side.
    """
    spec = reservation.spec
    if spec.unit is Unit.FRACTION:
        return spec.amount * spec.count
    if spec.unit is Unit.DEVICES:
        return spec.amount
    return Fraction(spec.count)
