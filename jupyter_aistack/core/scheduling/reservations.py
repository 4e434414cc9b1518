"""Reservations: devices kept for a queue during certain hours."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.placement.placement import Capacity, PlacementFailure


def conflict(
    one: Reservation, others: Iterable[Reservation], inventory: Inventory
) -> str:
    """Why an idle host could not hold `one` beside those of `others` that share time
    with it; empty when it could.
    """
    at_once = [other for other in others if other.id != one.id and _overlap(one, other)]
    same = next((other for other in at_once if other.queue == one.queue), None)
    if same is not None:
        return f"starts_at: it overlaps the reservation {same.name!r} of the same queue; change one of the two"
    room = Capacity(inventory)
    for reservation in [*at_once, one]:
        for number in range(reservation.count):
            slices = room.place(reservation.spec, host=reservation.host)
            if not isinstance(slices, PlacementFailure):
                room.take(slices)
            elif reservation is one:
                return _too_much(one, number, at_once)
    return ""


def _too_much(one: Reservation, number: int, at_once: list[Reservation]) -> str:
    beside = (
        f" beside {', '.join(repr(other.name) for other in at_once)}" if at_once else ""
    )
    return f"count: {one.count} slices of {one.spec} do not fit this host{beside}; {number} do"


def _overlap(one: Reservation, other: Reservation) -> bool:
    if one.is_weekly or other.is_weekly:
        return _overlap_weekly(one, other)
    return one.starts_at < other.ends_at and other.starts_at < one.ends_at


def _overlap_weekly(one: Reservation, other: Reservation) -> bool:
    """At least one comes again each week: compare the other's window with the nearest
    weeks of it.
    """
    weekly, single = (one, other) if one.is_weekly else (other, one)
    shift = math.floor((single.starts_at - weekly.starts_at) / WEEK_SECONDS)
    if not single.is_weekly:
        shift = max(shift, 0)  # it does not come before its first week
    for weeks in (shift - 1, shift, shift + 1):
        if weeks < 0 and not single.is_weekly:
            continue
        start = weekly.starts_at + weeks * WEEK_SECONDS
        if start < single.ends_at and single.starts_at < start + (
            weekly.ends_at - weekly.starts_at
        ):
            return True
    return False
