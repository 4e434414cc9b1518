"""Reservations: devices kept for a queue during certain hours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.request import MAX_COUNT, Spec
from jupyter_aistack.core.placement.placement import Capacity, PlacementFailure
from jupyter_aistack.exceptions import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """`count` slices of `spec` each for the members of a queue, from `starts_at` to
    `ends_at`.

    Attributes:
        id: unique, opaque.
        name: for people, e.g. ``deep learning class``.
        queue: whose leases use it.
        spec: what each gets.
        count: how many.
        starts_at, ends_at: the (first) window, in seconds since the epoch.
        is_weekly: the window comes again every week.
        created_by: the admin who made it.
        host: on which machine.
    """

    id: str
    name: str
    queue: str
    spec: Spec
    count: int
    starts_at: float
    ends_at: float
    is_weekly: bool = False
    created_by: str = ""
    host: str = ""

    def window(self, now: float) -> tuple[float, float] | None:
        """The window that `now` lies in, or else the next; None when there is none any
        more.
        """
        if now < self.ends_at:
            return self.starts_at, self.ends_at
        if not self.is_weekly:
            return None
        weeks = math.floor((now - self.ends_at) / WEEK_SECONDS) + 1
        return (
            self.starts_at + weeks * WEEK_SECONDS,
            self.ends_at + weeks * WEEK_SECONDS,
        )

    def check(self, now: float) -> None:
        """Raise `InvalidRequest`, naming the field, when it makes no sense."""
        if not self.name.strip():
            raise InvalidRequest(
                "name: a reservation needs a name people know it by", field="name"
            )
        if not 1 <= self.count <= MAX_COUNT:
            raise InvalidRequest(
                f"count: expected 1 to {MAX_COUNT} slices, got {self.count}",
                field="count",
            )
        if not self.starts_at < self.ends_at:
            raise InvalidRequest(
                "ends_at: a reservation ends after it starts", field="ends_at"
            )
        if self.is_weekly and self.ends_at - self.starts_at > WEEK_SECONDS:
            raise InvalidRequest(
                "ends_at: one that comes every week lasts a week at most",
                field="ends_at",
            )
        if self.window(now) is None:
            raise InvalidRequest("ends_at: that time is over already", field="ends_at")

    def is_running(self, now: float) -> bool:
        """Whether `now` lies in a window."""
        window = self.window(now)
        return window is not None and window[0] <= now


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
