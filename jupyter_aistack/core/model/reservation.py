"""Reservations: devices kept for a queue during certain hours, as the ledger keeps them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jupyter_aistack.exceptions import InvalidRequest

from .policy import WEEK_SECONDS
from .spec import MAX_COUNT, Spec


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
