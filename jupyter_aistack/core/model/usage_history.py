"""What each user has used: decayed for fair shares, and by the week for limits.

Use is counted in device-equivalent seconds (see `equivalents`). For fair shares it
decays by half every half-life, the way Slurm's priority/multifactor plugin and KAI's
time-based fairshare do: one second of use t seconds ago weighs 0.5 ** (t / half_life).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from .device import Slice, SliceKind
from .lease import Lease
from .policy import WEEK_SECONDS

MONDAY = 4 * 86400.0
"""The first Monday after the epoch, which was a Thursday."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a user's ended leases in one queue have used.

    Attributes:
        user, queue: whose.
        decayed: device-equivalent seconds, decayed to time `at`.
        at: when `decayed` was true, in seconds since the epoch.
        week: number of the week (since the first Monday of 1970) that `week_seconds`
            counts.
        week_seconds: device-equivalent seconds used in that week, not decayed.
    """

    user: str
    queue: str
    decayed: float = 0.0
    at: float = 0.0
    week: int = 0
    week_seconds: float = 0.0


def equivalents(slices: Iterable[Slice]) -> Fraction:
    """The size of slices in device equivalents: the dominant of what they take of GPUs
    and of CPUs.

    A slice's fraction is already the larger of its memory and compute shares, so this
    is the dominant share of Ghodsi et al., NSDI 2011, in units of one device.
    """
    parts = tuple(slices)
    if len(parts) == 1:
        return parts[0].fraction
    gpus = Fraction(0)
    cpus = Fraction(0)
    for slice_ in parts:
        if slice_.kind is SliceKind.CPU:
            cpus += slice_.fraction
        else:
            gpus += slice_.fraction
    return max(gpus, cpus)


def week_of(at: float) -> int:
    """Number of the calendar week (Monday to Sunday, UTC) that `at` is in."""
    return int((at - MONDAY) // WEEK_SECONDS)


def week_start(week: int) -> float:
    """When a week begins, in seconds since the epoch."""
    return MONDAY + week * WEEK_SECONDS


def decayed_at(account: Account, now: float, half_life_seconds: float) -> float:
    """What an account still weighs at `now`."""
    age = max(0.0, now - account.at)
    return account.decayed * _decay(age, half_life_seconds)


def decayed_use(
    size: Fraction, start: float, end: float, now: float, half_life_seconds: float
) -> float:
    """The weight at `now` of `size` device equivalents in use from `start` to `end`:
    the integral of the decay.
    """
    if end <= start:
        return 0.0
    rate = math.log(2) / half_life_seconds
    until = max(0.0, now - end)
    since = max(0.0, now - start)
    at_end = math.exp(-rate * until)
    at_start = math.exp(-rate * since)
    decay = at_end - at_start
    share = size.numerator / size.denominator
    return share * decay / rate


def used_in_week(size: Fraction, start: float, end: float, week: int) -> float:
    """Device-equivalent seconds of that use that fall into `week`."""
    begin = week_start(week)
    first = max(start, begin)
    last = min(end, begin + WEEK_SECONDS)
    seconds = last - first
    return float(size) * max(0.0, seconds)


def charged(account: Account, lease: Lease, half_life_seconds: float) -> Account:
    """The account after `lease`, which has ended, is charged to it; not for the time it
    was suspended.

    When that was is not known any more: it counts as the beginning, which charges too
    much rather than too little.
    """
    end = lease.ended_at if lease.ended_at is not None else lease.granted_at
    at = max(account.at, end)
    size = equivalents(lease.slices)
    week = week_of(end)
    start = lease.used_since(end)
    used = account.week_seconds if account.week == week else 0.0
    # A lease whose end is noticed late: that week is over.
    if account.week > week and account.week_seconds:
        week = account.week
        used = account.week_seconds
    half_life = half_life_seconds
    return replace(
        account,
        decayed=decayed_at(account, at, half_life)
        + decayed_use(size, start, end, at, half_life),
        at=at,
        week=week,
        week_seconds=used + used_in_week(size, start, end, week),
    )


def _decay(seconds: float, half_life_seconds: float) -> float:
    return float(0.5 ** (seconds / half_life_seconds))
