"""Usage as people read it: hours, energy, carbon and cost, by user and week. Unknown
is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest

from .charges import DAY_SECONDS, SYSTEM, UsageRecord

HOUR = 3600.0
MILLIJOULES_PER_KWH = 3_600_000_000
EPOCH = date(1970, 1, 1)
SYSTEM_USER = "(system)"
"""Under which name a report shows the energy that no lease can be shown to have
used.
"""
COVERED = 0.95
"""A sum that is known for a smaller part of its time says too little to be shown as the
whole.
"""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What energy and devices cost here. None is not known, and what follows from it is
    not shown.

    Attributes:
        carbon_g_per_kwh: grams of CO2 equivalent per kWh of the grid.
        price_per_kwh, price_per_gpu_hour: in the site's own currency.
    """

    carbon_g_per_kwh: float | None = None
    price_per_kwh: float | None = None
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class UsageFigures:
    """What usage records come to.

    Attributes:
        gpu_hours, cpu_hours: share granted times hours.
        gpu_hours_used: activity (multiprocessors at work, as a share of the GPU) times
            hours.
        gpu_hours_idle: of `gpu_hours`, those in which nothing worked at all.
        gib_hours: GPU memory in use times hours.
        peak_bytes: the most GPU memory of one lease on one GPU.
        energy_kwh: energy of the GPUs, over `energy_coverage`.
        energy_coverage, activity_coverage: for which part of the time energy and
            activity are known, 0 to 1.
        energy_estimated_kwh: of `energy_kwh`, what is an estimate; see
            `UsageRecord.estimated_millijoules`.
        cost: of energy and GPU-hours, as far as prices are set.
        co2e_g: grams of CO2 equivalent.
        is_simulated: hours of simulated devices are among them.
    """

    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours_used: float | None = None
    gpu_hours_idle: float | None = None
    gib_hours: float | None = None
    peak_bytes: int | None = None
    energy_kwh: float | None = None
    energy_coverage: float | None = None
    energy_estimated_kwh: float | None = None
    activity_coverage: float | None = None
    cost: float | None = None
    co2e_g: float | None = None
    is_simulated: bool = False

    @property
    def whole_energy_kwh(self) -> float | None:
        """The energy where (nearly) all of it is known."""
        if (self.energy_coverage or 0.0) >= COVERED:
            return self.energy_kwh
        return None


@dataclass(frozen=True, kw_only=True)
class UsageLine:
    """What a user used in a week (``2026-W48``, Monday to Sunday, UTC)."""

    week: str
    user: str
    figures: UsageFigures

    def as_dict(self) -> dict[str, Any]:
        """Flat, as it goes on the wire and into a table."""
        return {"week": self.week, "user": self.user, **asdict(self.figures)}


@dataclass
class UsageTotals:
    """Sums over usage records, of seconds unless the name says otherwise.

    Attributes:
        gpu_seconds: GPUs held, or watched for the system.
        metered_seconds: of these, those whose energy is known.
        millijoules: that energy.
        estimated_millijoules: of it, what is an estimate.
        held_seconds: GPUs held by leases.
        share_seconds: that times the share granted.
        cpu_share_seconds: the same for CPUs.
        watched_seconds: GPUs held whose activity is known.
        busy_seconds: that activity times time.
        idle_share_seconds: shares held while nothing worked at all.
        memory_seconds: GPUs held whose memory in use is known.
        byte_seconds: that memory, in bytes, times time.
        peak_bytes: the most memory of one lease on one GPU; None where it is unknown.
        is_simulated: simulated devices are among them.
    """

    gpu_seconds: float = 0.0
    metered_seconds: float = 0.0
    millijoules: int = 0
    estimated_millijoules: int = 0
    held_seconds: float = 0.0
    share_seconds: float = 0.0
    cpu_share_seconds: float = 0.0
    watched_seconds: float = 0.0
    busy_seconds: float = 0.0
    idle_share_seconds: float = 0.0
    memory_seconds: float = 0.0
    byte_seconds: float = 0.0
    peak_bytes: int | None = None
    is_simulated: bool = False

    def add(self, record: UsageRecord) -> None:
        """One more record."""
        self.is_simulated = self.is_simulated or record.kind == "simulated"
        if record.kind == "cpu":
            self.cpu_share_seconds += record.share_seconds
            return
        self.gpu_seconds += record.seconds
        self.metered_seconds += record.metered_seconds
        self.millijoules += record.millijoules
        self.estimated_millijoules += record.estimated_millijoules
        if record.lease_id != SYSTEM:
            self._add_held(record)

    def _add_held(self, record: UsageRecord) -> None:
        """A record of a lease on a GPU."""
        self.held_seconds += record.seconds
        self.share_seconds += record.share_seconds
        self.watched_seconds += record.watched_seconds
        self.busy_seconds += record.busy_seconds
        self.idle_share_seconds += record.levels[0] * record.share
        self.memory_seconds += record.memory_seconds
        self.byte_seconds += record.byte_seconds
        if record.peak_bytes is not None:
            self.peak_bytes = max(self.peak_bytes or 0, record.peak_bytes)

    @property
    def energy_kwh(self) -> float | None:
        """The energy, over the time that it is known for."""
        return self._kwh_if_metered(self.millijoules)

    @property
    def energy_estimated_kwh(self) -> float | None:
        """What is an estimate of it."""
        return self._kwh_if_metered(self.estimated_millijoules)

    def _kwh_if_metered(self, millijoules: int) -> float | None:
        if not self.metered_seconds:
            return None
        return millijoules / MILLIJOULES_PER_KWH

    def hours_if_watched(self, seconds: float) -> float | None:
        """Seconds in hours; None where no activity is known."""
        if self.watched_seconds:
            return seconds / HOUR
        return None


def figures(records: Iterable[UsageRecord], rates: Rates) -> UsageFigures:
    """What usage records come to."""
    totals = UsageTotals()
    for record in records:
        totals.add(record)
    gpu_hours = totals.share_seconds / HOUR
    kwh = totals.energy_kwh
    gib_seconds = totals.byte_seconds / GIB
    return UsageFigures(
        gpu_hours=gpu_hours,
        cpu_hours=totals.cpu_share_seconds / HOUR,
        gpu_hours_used=totals.hours_if_watched(totals.busy_seconds),
        gpu_hours_idle=totals.hours_if_watched(totals.idle_share_seconds),
        gib_hours=gib_seconds / HOUR if totals.memory_seconds else None,
        peak_bytes=totals.peak_bytes,
        energy_kwh=kwh,
        energy_coverage=_part(totals.metered_seconds, totals.gpu_seconds),
        energy_estimated_kwh=totals.energy_estimated_kwh,
        activity_coverage=_part(totals.watched_seconds, totals.held_seconds),
        cost=cost_of(gpu_hours, kwh, rates),
        co2e_g=carbon_of(kwh, rates),
        is_simulated=totals.is_simulated,
    )


def _part(known: float, whole: float) -> float | None:
    if whole:
        return known / whole
    return None


def carbon_of(kwh: float | None, rates: Rates) -> float | None:
    """Grams of CO2 equivalent; None where the energy or the grid's rate is unknown."""
    if kwh is None or rates.carbon_g_per_kwh is None:
        return None
    return kwh * rates.carbon_g_per_kwh


def cost_of(gpu_hours: float, kwh: float | None, rates: Rates) -> float | None:
    """What energy and GPU-hours cost; None where no price is set, or a price is for
    energy that is unknown.
    """
    of_energy = rates.price_per_kwh
    of_hours = rates.price_per_gpu_hour
    if of_energy is None and of_hours is None:
        return None
    if of_energy is not None and kwh is None:
        return None

    hours_cost = gpu_hours * (of_hours or 0.0)
    energy_cost = (kwh or 0.0) * (of_energy or 0.0)
    return hours_cost + energy_cost


def lines(records: Iterable[UsageRecord], rates: Rates) -> tuple[UsageLine, ...]:
    """A line for each week and user, in that order; what belongs to no lease comes
    under `SYSTEM_USER`.
    """
    groups: dict[tuple[str, str], list[UsageRecord]] = {}
    for record in records:
        user = SYSTEM_USER if record.lease_id == SYSTEM else record.user
        key = (week_name(record.day), user)
        groups.setdefault(key, []).append(record)

    return tuple(
        UsageLine(week=week, user=user, figures=figures(own, rates))
        for (week, user), own in sorted(groups.items())
    )


def week_name(day: int) -> str:
    """The ISO week of a day, as ``2026-W48``."""
    year, week, _ = datetime.fromtimestamp(day * DAY_SECONDS, UTC).isocalendar()
    return f"{year}-W{week:02d}"


def days_of_week(text: str) -> tuple[int, int]:
    """The first and the last day of a week written as ``2026-W48``.

    Raises:
        InvalidRequest: naming ``week``.
    """
    year, separator, week = text.strip().upper().partition("-W")
    monday = EPOCH
    try:
        if separator:
            monday = date.fromisocalendar(int(year), int(week), 1)
    except ValueError:
        separator = ""

    if not separator or monday < EPOCH:
        raise InvalidRequest(
            f"week: {text[:32]!r} is not a week; write 2026-W48", field="week"
        )
    first = (monday - EPOCH).days
    return first, first + 6


def cells(records: Iterable[UsageRecord], most: int) -> list[dict[str, Any]]:
    """What each cell used, the most expensive first: by energy, then by time at work,
    then by time.

    The time between cells is there too, under an empty name.
    """
    groups: dict[str, list[UsageRecord]] = {}
    for record in records:
        if record.lease_id != SYSTEM:
            groups.setdefault(record.cell, []).append(record)

    rows = [_cell(name, own) for name, own in groups.items()]
    return sorted(rows, key=_most_expensive_first)[:most]


def _most_expensive_first(row: dict[str, Any]) -> tuple[float, float, float, bool]:
    energy = row["energy_wh"] or 0.0
    return -energy, -row["busy_seconds"], -row["seconds"], not row["cell"]


def _cell(name: str, records: Sequence[UsageRecord]) -> dict[str, Any]:
    used = figures(records, Rates())
    peaks = [record.peak_bytes for record in records if record.peak_bytes is not None]
    # A cell on two devices runs once: its time is that on one of them.
    by_device: dict[str, float] = {}
    for record in records:
        seconds = by_device.get(record.device_id, 0.0)
        by_device[record.device_id] = seconds + record.seconds
    return {
        "cell": name,
        "seconds": max(by_device.values()),
        "busy_seconds": sum(record.busy_seconds for record in records),
        "energy_wh": _watt_hours(used.energy_kwh),
        "energy_estimated_wh": _watt_hours(used.energy_estimated_kwh),
        "peak_bytes": max(peaks, default=None),
    }


def _watt_hours(kwh: float | None) -> float | None:
    return None if kwh is None else kwh * 1000
