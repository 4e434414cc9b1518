"""What is written down of use: who held how much of which device on which day, and what
was measured meanwhile.

Energy is kept in whole millijoules, the driver's own unit, so that parts add up to its
counter exactly, in whatever order they are added. What cannot be measured is
distinguished from nothing: beside each sum stands for how many seconds it is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

DAY_SECONDS = 86400.0
SYSTEM = ""
"""In place of a lease: what no lease can be shown to have used."""

LEVELS = (0.001, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Upper ends of the levels of activity, as shares of a device; the first is "did
nothing". The others lie at the sizes that are commonly asked for, so that it can be
determined which would have held the work."""
NO_LEVELS = (0.0,) * len(LEVELS)

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """What one lease (and one cell) used of one device on one day.

    Attributes:
        host, device_id: where.
        lease_id: of which lease; `SYSTEM` for what belongs to none.
        cell: during which cell, ``number:hash``; empty for the time between cells.
        day: number of the day (UTC) since 1970.
        user, queue, owner, label, spec: of the lease; the owner is the kernel (or
            process) it works for.
        kind: ``gpu``, ``cpu`` or ``simulated``.
        seconds: how long it was held.
        share_seconds: that times the share of the device it was granted, and what was
            seen in use above it where the lease has a ceiling.
        millijoules: energy, over `metered_seconds`.
        metered_seconds: for how long its energy is known.
        estimated_millijoules: of `millijoules`, work that was divided among leases by
            granted share, since no driver tells whose it was: an estimate.
        busy_seconds: activity (share of the device that worked) times time.
        levels: seconds at each of `LEVELS`; their sum is for how long the activity is
            known.
        byte_seconds: memory in use times time, over `memory_seconds`.
        memory_seconds: for how long its memory is known.
        peak_bytes: the most memory seen in use at once; None where it was never seen.
    """

    host: str
    device_id: str
    lease_id: str = SYSTEM
    cell: str = ""
    day: int
    user: str = ""
    queue: str = ""
    owner: str = ""
    label: str = ""
    spec: str = ""
    kind: str = "gpu"
    seconds: float = 0.0
    share_seconds: float = 0.0
    millijoules: int = 0
    metered_seconds: float = 0.0
    estimated_millijoules: int = 0
    busy_seconds: float = 0.0
    levels: tuple[float, ...] = NO_LEVELS
    byte_seconds: float = 0.0
    memory_seconds: float = 0.0
    peak_bytes: int | None = None

    @property
    def key(self) -> Key:
        """Where it is kept: charges with the same key are added up."""
        return (self.host, self.device_id, self.lease_id, self.cell, self.day)

    @property
    def watched_seconds(self) -> float:
        """For how long its activity is known."""
        return sum(self.levels)

    @property
    def share(self) -> float:
        """The share of the device that was granted, on average."""
        if self.seconds:
            return self.share_seconds / self.seconds
        return 0.0


@dataclass(frozen=True, kw_only=True)
class MeterState:
    """How far a device's counter has been charged. A caller that moves it must name
    what it was, so nothing counts twice.

    Attributes:
        host, device_id: where.
        at: up to when, in seconds since the epoch.
        millijoules: what the counter read then; None where there is no counter.
        idle_watts: what the device draws when nothing works on it; None before it was
            seen.
        is_idle_seen: `idle_watts` was measured while nothing worked; else it is the
            least power seen at all.
        writer: the process that records the host's usage now; empty when none does.
    """

    host: str
    device_id: str
    at: float
    millijoules: int | None = None
    idle_watts: float | None = None
    is_idle_seen: bool = False
    writer: str = ""


@dataclass(frozen=True, kw_only=True)
class CellInterval:
    """When a cell ran.

    Attributes:
        host: on which host.
        user: of whose kernel; kernels of two users may be called alike.
        owner: in which kernel.
        cell: ``number:hash`` of it; never its code.
        began_at, ended_at: in seconds since the epoch; no end while it runs.
    """

    host: str
    user: str
    owner: str
    cell: str
    began_at: float
    ended_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class UsageSummary:
    """All that is charged for some time on one host, to be written down whole or not at
    all.

    Attributes:
        before: the meters it goes on from; a device without a meter is new.
        after: the same meters, moved.
        charges: what was used between.
    """

    before: tuple[MeterState, ...] = ()
    after: tuple[MeterState, ...] = ()
    charges: tuple[UsageRecord, ...] = ()


def day_of(at: float) -> int:
    """Number of the day (UTC) that `at` is in."""
    return int(at // DAY_SECONDS)


def level_of(activity: float) -> int:
    """Which of `LEVELS` an activity lies in."""
    return next(
        (number for number, end in enumerate(LEVELS) if activity <= end),
        len(LEVELS) - 1,
    )


def added(first: UsageRecord, second: UsageRecord) -> UsageRecord:
    """Both records together, under the key of the first; what is recorded of the lease
    comes from the later, the second.
    """
    peaks = [peak for peak in (first.peak_bytes, second.peak_bytes) if peak is not None]
    return replace(
        second,
        cell=first.cell,
        day=first.day,
        seconds=first.seconds + second.seconds,
        share_seconds=first.share_seconds + second.share_seconds,
        millijoules=first.millijoules + second.millijoules,
        metered_seconds=first.metered_seconds + second.metered_seconds,
        estimated_millijoules=(
            first.estimated_millijoules + second.estimated_millijoules
        ),
        busy_seconds=first.busy_seconds + second.busy_seconds,
        levels=tuple(a + b for a, b in zip(first.levels, second.levels, strict=True)),
        byte_seconds=first.byte_seconds + second.byte_seconds,
        memory_seconds=first.memory_seconds + second.memory_seconds,
        peak_bytes=max(peaks, default=None),
    )


def summed(charges: Iterable[UsageRecord]) -> tuple[UsageRecord, ...]:
    """One charge for each key."""
    by_key: dict[Key, UsageRecord] = {}
    for charge in charges:
        known = by_key.get(charge.key)
        by_key[charge.key] = charge if known is None else added(known, charge)
    return tuple(by_key.values())
