"""The time between two readings of a device: by how much its counter moved, what worked
meanwhile, and which leases held a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease

from .charges import LEVELS, MeterState

GAP_SECONDS = 30.0
"""Two readings farther apart say nothing of what worked between them: the driver keeps
its samples for less.
"""


LEAST_CALIBRATION_SECONDS = 5.0
"""Idle watts are taken over at least this long: counters move in steps of up to 0.1
s.
"""


@dataclass(frozen=True, kw_only=True)
class ProcessLoad:
    """What was measured of a device over the time since it was read before.

    Attributes:
        millijoules: its energy counter now; None where it has none.
        busy: activity of each lease, as a share of the device, 0 to 1; absent where it
            cannot be known.
        others: activity of processes of no lease; None where activity cannot be known
            at all.
        estimated: of `busy`, the leases whose activity is an estimate: work of several
            that is divided among them by granted share.
        memory: bytes in use by each lease now; absent where it cannot be known.
    """

    millijoules: int | None = None
    busy: Mapping[str, float] = field(default_factory=dict)
    others: float | None = None
    estimated: frozenset[str] = frozenset()
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
    """The time between two readings of a device.

    Attributes:
        device: which.
        start, end: in seconds since the epoch; the end may come first where a clock was
            set back.
        millijoules: by how much its counter moved; None where that cannot be known.
        load: what was measured at its end.
        is_watched: it was read at its start as well, a short while ago; else what worked
            cannot be known.
        suspended: leases that held nothing at its end, for their state was in host memory.
    """

    device: Device
    start: float
    end: float
    millijoules: int | None
    load: ProcessLoad
    is_watched: bool = True
    suspended: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        return max(0.0, self.end - self.start)

    @property
    def busy(self) -> Mapping[str, float]:
        if self.is_watched:
            return self.load.busy
        return {}

    @property
    def others(self) -> float | None:
        if self.is_watched:
            return self.load.others
        return None

    @property
    def estimated(self) -> frozenset[str]:
        if self.is_watched:
            return self.load.estimated
        return frozenset()

    @property
    def activity(self) -> float | None:
        """The activity of all processes together; None where it is unknown."""
        if self.others is None:
            return None
        return self.others + sum(self.busy.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known to have worked in it."""
        return self.activity is not None and self.activity <= LEVELS[0]


def interval(
    device: Device,
    before: MeterState | None,
    load: ProcessLoad,
    now: float,
    *,
    is_watched: bool,
) -> Interval:
    """The time since a meter's last reading; none at all for a device that is new."""
    if before is None:
        return Interval(
            device=device,
            start=now,
            end=now,
            millijoules=None,
            load=load,
            is_watched=False,
        )
    is_close = 0 <= now - before.at <= GAP_SECONDS
    return Interval(
        device=device,
        start=before.at,
        end=now,
        millijoules=_moved(before.millijoules, load.millijoules),
        load=load,
        is_watched=is_watched and is_close,
    )


def _moved(before: int | None, now: int | None) -> int | None:
    """By how much a counter moved; unknown after it was reset, which happens when the
    driver is loaded again.
    """
    if before is None or now is None or now < before:
        return None
    return now - before


def holdings(leases: Iterable[Lease], interval: Interval) -> tuple[SliceHolding, ...]:
    """Which leases held a part of a device during an interval. A lease whose state is
    suspended holds nothing.
    """
    holders = []
    for lease in leases:
        share = _share_of(lease, interval.device.id)
        start = max(interval.start, lease.granted_at)
        end = interval.end
        if lease.ended_at is not None:
            end = min(end, lease.ended_at)
        is_there = lease.id not in interval.suspended
        if is_there and share and end > start:
            holding = SliceHolding(lease=lease, share=share, start=start, end=end)
            holders.append(holding)
    return tuple(holders)


def _share_of(lease: Lease, device_id: str) -> float:
    shares = (each.fraction for each in lease.slices if each.device_id == device_id)
    return float(sum(shares))


def calibrated(meter: MeterState, intervals: Sequence[Interval]) -> MeterState:
    """The meter with what the intervals show of its device's idle watts.

    Idle is the least power seen while no process worked; before that was ever seen, the
    least power seen at all, which is too much rather than too little and so leaves more
    to be divided by share.
    """
    watts = _watts(intervals)
    if watts is None:
        return meter
    is_idle = all(interval.is_idle for interval in intervals)
    is_first = meter.idle_watts is None or (is_idle and not meter.is_idle_seen)
    if is_first:
        return replace(meter, idle_watts=watts, is_idle_seen=is_idle)
    if meter.is_idle_seen and not is_idle:
        return meter
    return replace(meter, idle_watts=min(meter.idle_watts or watts, watts))


def _watts(intervals: Sequence[Interval]) -> float | None:
    """The mean power over intervals; None where they are too short or not all known."""
    seconds = sum(interval.seconds for interval in intervals)
    if seconds < LEAST_CALIBRATION_SECONDS:
        return None
    millijoules = 0
    for interval in intervals:
        if interval.millijoules is None or not interval.is_watched:
            return None
        millijoules += interval.millijoules
    return millijoules / seconds / 1000
