"""How the energy of a device is divided among the leases on it. Nothing here asks a
driver.

Of what a device's counter has moved by, the idle part (idle watts x time) is divided by
the share each lease was granted, and the rest, the dynamic part, by how active each
was. What is left (shares nobody holds, processes of no lease, work that cannot be told
apart) is the system's. The parts add up to the counter exactly.

A lease that holds a whole device alone needs no figures of activity: all is its own.
Any other whose activity cannot be known has no energy for that time, and no zero
either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease

from .charges import (
    LEVELS,
    NO_LEVELS,
    SYSTEM,
    CellInterval,
    MeterState,
    UsageRecord,
    day_of,
    level_of,
)

GAP_SECONDS = 30.0
"""Two looks farther apart say nothing of who worked between them: the driver keeps its
samples for less.
"""
LEAST_CALIBRATION_SECONDS = 5.0
"""Idle watts are taken over at least this long: counters move in steps of up to 0.1
s.
"""

Parts = dict[str, tuple[int, int]]
"""By lease, its idle and its dynamic millijoules."""


@dataclass(frozen=True, kw_only=True)
class ProcessLoad:
    """What was measured of a device over the time since it was looked at before.

    Attributes:
        millijoules: its energy counter now; None where it has none.
        busy: activity of each lease, as a share of the device, 0 to 1; absent where it
            cannot be known.
        others: activity of processes of no lease; None where activity cannot be known
            at all.
        memory: bytes in use by each lease now; absent where it cannot be known.
    """

    millijoules: int | None = None
    busy: Mapping[str, float] = field(default_factory=dict)
    others: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SliceHolding:
    """A lease's hold on one device for a time.

    Attributes:
        lease: the lease.
        share: its share of the device, 0 to 1.
        start, end: when it held it, within the interval.
    """

    lease: Lease
    share: float
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The time between two looks at a device.

    Attributes:
        device: which.
        start, end: in seconds since the epoch; the end may come first where a clock was
            set back.
        millijoules: by how much its counter moved; None where that cannot be known.
        load: what was measured at its end.
        is_watched: somebody looked at its start as well, a short while ago; else who
            worked cannot be known.
        parked: leases that held nothing at its end, for their state was in host memory.
    """

    device: Device
    start: float
    end: float
    millijoules: int | None
    load: ProcessLoad
    is_watched: bool = True
    parked: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        return max(0.0, self.end - self.start)

    @property
    def busy(self) -> Mapping[str, float]:
        return self.load.busy if self.is_watched else {}

    @property
    def others(self) -> float | None:
        return self.load.others if self.is_watched else None

    @property
    def activity(self) -> float | None:
        """Of all processes together."""
        return None if self.others is None else self.others + sum(self.busy.values())


def interval(
    device: Device,
    before: MeterState | None,
    load: ProcessLoad,
    now: float,
    *,
    is_watched: bool,
) -> Interval:
    """The time since a meter's last reading; none at all for a device that is new."""
    start = now if before is None else before.at
    is_close = before is not None and is_watched and 0 <= now - start <= GAP_SECONDS
    moved = None if before is None else _moved(before.millijoules, load.millijoules)
    return Interval(
        device=device,
        start=start,
        end=now,
        millijoules=moved,
        load=load,
        is_watched=is_close,
    )


def _moved(before: int | None, now: int | None) -> int | None:
    """By how much a counter moved; unknown after it began anew, which it does when the
    driver is loaded again.
    """
    return None if before is None or now is None or now < before else now - before


def split(
    millijoules: int,
    idle_millijoules: int,
    shares: Mapping[str, float],
    busy: Mapping[str, float],
    others: float | None,
) -> Parts:
    """Divide what a counter moved by. The sum of all parts, `SYSTEM`'s included, is
    `millijoules` exactly.

    Args:
        millijoules: to be divided.
        idle_millijoules: how much of it is drawn when nothing works.
        shares: the granted share of each lease, 0 to 1.
        busy: the activity of each lease; absent where unknown.
        others: activity of processes of no lease; None where activity is unknown.

    Returns:
        By lease; those whose part cannot be known are missing, and theirs is in
        `SYSTEM`'s.
    """
    idle = min(max(idle_millijoules, 0), millijoules)
    if others is None:
        whole = [lease for lease, share in shares.items() if share >= 1]
        is_alone = len(shares) == len(whole) == 1
        return _with_rest(
            {whole[0]: (idle, millijoules - idle)} if is_alone else {},
            idle,
            millijoules,
        )
    known = {lease: activity for lease, activity in busy.items() if lease in shares}
    strangers = others + sum(
        activity for lease, activity in busy.items() if lease not in shares
    )
    granted = _portions(
        idle, {lease: shares[lease] for lease in known}, max(1.0, sum(shares.values()))
    )
    worked = _portions(millijoules - idle, known, sum(known.values()) + strangers)
    return _with_rest(
        {lease: (granted[lease], worked[lease]) for lease in known}, idle, millijoules
    )


def _portions(
    amount: int, weights: Mapping[str, float], total: float
) -> dict[str, int]:
    """Whole parts of `amount` by weight, rounded down; together never more than it."""
    parts = {}
    left = amount
    for name, weight in weights.items():
        parts[name] = min(left, int(amount * weight / total)) if total > 0 else 0
        left -= parts[name]
    return parts


def _with_rest(parts: Parts, idle: int, whole: int) -> Parts:
    idle_left = idle - sum(part[0] for part in parts.values())
    worked_left = whole - idle - sum(part[1] for part in parts.values())
    return {**parts, SYSTEM: (idle_left, worked_left)}


def holdings(leases: Iterable[Lease], gone_by: Interval) -> tuple[SliceHolding, ...]:
    """Who held a part of a device during an interval. A lease whose state is parked
    elsewhere holds nothing.
    """
    found = []
    start = gone_by.start
    end = gone_by.end
    for lease in leases:
        share = float(
            sum(
                piece.fraction
                for piece in lease.slices
                if piece.device_id == gone_by.device.id
            )
        )
        since = max(start, lease.granted_at)
        until = end if lease.ended_at is None else min(end, lease.ended_at)
        if share and until > since and lease.id not in gone_by.parked:
            found.append(SliceHolding(lease=lease, share=share, start=since, end=until))
    return tuple(found)


def charges_of(
    gone_by: Interval,
    holders: Sequence[SliceHolding],
    idle_watts: float | None,
    cells: Sequence[CellInterval] = (),
) -> list[UsageRecord]:
    """What an interval costs whom.

    Args:
        gone_by: the interval.
        holders: who held a part of its device, as `holdings` gives them.
        idle_watts: what the device draws when nothing works on it; None while that is
            unknown.
        cells: when cells ran, of whichever kernel.
    """
    parts: Parts | None = None
    if gone_by.millijoules is not None:
        idle = (
            gone_by.millijoules
            if idle_watts is None
            else round(idle_watts * gone_by.seconds * 1000)
        )
        held = {t.lease.id: t.share * t.seconds / gone_by.seconds for t in holders}
        parts = split(gone_by.millijoules, idle, held, gone_by.busy, gone_by.others)
    found = [
        charge
        for holding in holders
        for charge in _of_lease(gone_by, holding, parts, cells)
    ]
    return found if parts is None else [*found, _of_system(gone_by, holders, parts)]


def _of_system(
    gone_by: Interval, holders: Sequence[SliceHolding], parts: Parts
) -> UsageRecord:
    free = gone_by.seconds - sum(holding.share * holding.seconds for holding in holders)
    return UsageRecord(
        **_where(gone_by),
        seconds=gone_by.seconds,
        share_seconds=max(0.0, free),
        millijoules=sum(parts[SYSTEM]),
        metered_seconds=gone_by.seconds,
    )


def _of_lease(
    gone_by: Interval,
    holding: SliceHolding,
    parts: Parts | None,
    cells: Sequence[CellInterval],
) -> Iterator[UsageRecord]:
    """A lease's charges for an interval: one for each cell that ran, and one for the
    time of none.
    """
    lease = holding.lease
    whole_idle, whole_work = idle, worked = (
        (0, 0) if parts is None else parts.get(lease.id, (0, 0))
    )
    whole = _whose(gone_by, lease)
    activity = gone_by.busy.get(lease.id)
    memory = gone_by.load.memory.get(lease.id)
    seen = memory is not None and gone_by.is_watched
    times = _times(holding, whole.owner, cells)
    working = sum(seconds for cell, seconds in times.items() if cell) or holding.seconds
    for number, (cell, seconds) in enumerate(times.items(), 1):
        # Between cells a kernel waits for its user: what worked meanwhile worked for
        # the cells around.
        does_work = bool(cell) or len(times) == 1
        is_last = number == len(times)
        own_idle = (
            idle if is_last else min(idle, int(whole_idle * seconds / holding.seconds))
        )
        own_work = (
            worked
            if is_last
            else min(worked, int(whole_work * seconds / working))
            if does_work
            else 0
        )
        idle = idle - own_idle
        worked = worked - own_work
        yield replace(
            whole,
            cell=cell,
            seconds=seconds,
            share_seconds=holding.share * seconds,
            millijoules=own_idle + own_work,
            metered_seconds=seconds if parts is not None and lease.id in parts else 0.0,
            busy_seconds=0.0
            if activity is None or not does_work
            else activity * holding.seconds * seconds / working,
            levels=_levels(
                activity, seconds, holding.seconds / working if does_work else 0.0
            ),
            byte_seconds=(memory or 0) * seen * seconds,
            memory_seconds=seen * seconds,
            peak_bytes=memory,
        )


def _whose(gone_by: Interval, lease: Lease) -> UsageRecord:
    """A charge of a lease with nothing on it yet."""
    return UsageRecord(
        **_where(gone_by),
        lease_id=lease.id,
        user=lease.holder.user,
        queue=lease.queue,
        owner=lease.holder.parent or lease.holder.id,
        label=lease.holder.label,
        spec=str(lease.spec),
    )


def _times(
    holding: SliceHolding, owner: str, cells: Sequence[CellInterval]
) -> dict[str, float]:
    """How long each cell ran while the lease held the device; under "" the time of
    none, which comes first.
    """
    found: dict[str, float] = {}
    own = sorted(
        (span for span in cells if span.owner == owner), key=lambda span: span.began_at
    )
    # One cell runs at a time: one whose end was never told, for its kernel died, ended
    # when the next one began.
    following = [*(later.began_at for later in own[1:]), holding.end]
    for number, span in enumerate(own):
        until = min(
            holding.end, following[number] if span.ended_at is None else span.ended_at
        )
        seconds = until - max(holding.start, span.began_at)
        if seconds > 0:
            found[span.cell] = found.get(span.cell, 0.0) + seconds
    inside = sum(found.values())
    if inside > holding.seconds:  # two clocks disagree
        found = {
            cell: seconds * holding.seconds / inside for cell, seconds in found.items()
        }
        inside = holding.seconds
    between = holding.seconds - inside
    return {**({"": between} if between > 1e-9 or not found else {}), **found}


def _levels(activity: float | None, seconds: float, dense: float) -> tuple[float, ...]:
    """`seconds` at the level of an activity that fell into a part of its time only,
    `dense` times as much of it.
    """
    if activity is None:
        return NO_LEVELS
    at = level_of(min(1.0, activity * dense))
    return tuple(seconds if number == at else 0.0 for number in range(len(LEVELS)))


def _where(gone_by: Interval) -> dict[str, Any]:
    device = gone_by.device
    kind = "simulated" if device.simulated else device.kind.value
    return {
        "host": device.host,
        "device_id": device.id,
        "kind": kind,
        "day": day_of(gone_by.end),
    }


def calibrated(meter: MeterState, intervals: Sequence[Interval]) -> MeterState:
    """The meter with what the intervals tell of its device's idle watts.

    Idle is the least power seen while no process worked; before that was ever seen, the
    least power seen at all, which is too much rather than too little and so leaves more
    to be divided by share.
    """
    seconds = sum(gone.seconds for gone in intervals)
    moved = [gone.millijoules for gone in intervals]
    if (
        seconds < LEAST_CALIBRATION_SECONDS
        or None in moved
        or not all(gone.is_watched for gone in intervals)
    ):
        return meter
    watts = sum(one for one in moved if one is not None) / seconds / 1000
    is_idle = all(
        gone.activity is not None and gone.activity <= LEVELS[0] for gone in intervals
    )
    if meter.idle_watts is None or is_idle > meter.is_idle_seen:
        return replace(meter, idle_watts=watts, is_idle_seen=is_idle)
    return (
        replace(meter, idle_watts=min(meter.idle_watts, watts))
        if is_idle >= meter.is_idle_seen
        else meter
    )
