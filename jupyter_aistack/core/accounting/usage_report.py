"""Charges as people read them: hours, energy, carbon and cost, by user and week.
Unknown is None, never zero.
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
    """What some charges come to.

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
    activity_coverage: float | None = None
    cost: float | None = None
    co2e_g: float | None = None
    is_simulated: bool = False

    @property
    def whole_energy_kwh(self) -> float | None:
        """The energy where (nearly) all of it is known."""
        return self.energy_kwh if (self.energy_coverage or 0.0) >= COVERED else None


@dataclass(frozen=True, kw_only=True)
class UsageLine:
    """What a user used in a week (``2026-W48``, Monday to Sunday, UTC)."""

    week: str
    user: str
    figures: UsageFigures

    def as_dict(self) -> dict[str, Any]:
        """Flat, as it goes on the wire and into a table."""
        return {"week": self.week, "user": self.user, **asdict(self.figures)}


def figures(charges: Iterable[UsageRecord], rates: Rates) -> UsageFigures:
    """What the charges come to."""
    every = list(charges)
    gpus = [one for one in every if one.kind != "cpu"]
    held = [one for one in gpus if one.lease_id != SYSTEM]
    seconds = sum(one.seconds for one in gpus)
    metered = sum(one.metered_seconds for one in gpus)
    watched = sum(one.watched_seconds for one in held)
    seen = sum(one.memory_seconds for one in held)
    peaks = [one.peak_bytes for one in held if one.peak_bytes is not None]
    gpu_hours = sum(one.share_seconds for one in held) / HOUR
    kwh = (
        sum(one.millijoules for one in gpus) / MILLIJOULES_PER_KWH if metered else None
    )
    return UsageFigures(
        gpu_hours=gpu_hours,
        cpu_hours=sum(one.share_seconds for one in every if one.kind == "cpu") / HOUR,
        gpu_hours_used=sum(one.busy_seconds for one in held) / HOUR
        if watched
        else None,
        gpu_hours_idle=sum(one.levels[0] * one.share for one in held) / HOUR
        if watched
        else None,
        gib_hours=sum(one.byte_seconds for one in held) / GIB / HOUR if seen else None,
        peak_bytes=max(peaks, default=None),
        energy_kwh=kwh,
        energy_coverage=metered / seconds if seconds else None,
        activity_coverage=watched / sum(one.seconds for one in held) if held else None,
        cost=cost_of(gpu_hours, kwh, rates),
        co2e_g=carbon_of(kwh, rates),
        is_simulated=any(one.kind == "simulated" for one in every),
    )


def carbon_of(kwh: float | None, rates: Rates) -> float | None:
    """Grams of CO2 equivalent; None where the energy or the grid's rate is not
    known.
    """
    return (
        None
        if kwh is None or rates.carbon_g_per_kwh is None
        else kwh * rates.carbon_g_per_kwh
    )


def cost_of(gpu_hours: float, kwh: float | None, rates: Rates) -> float | None:
    """What energy and GPU-hours cost; None where no price is set, or one is for energy
    that is not known.
    """
    of_energy = rates.price_per_kwh
    of_hours = rates.price_per_gpu_hour
    if (of_energy is None and of_hours is None) or (
        of_energy is not None and kwh is None
    ):
        return None
    return gpu_hours * (of_hours or 0.0) + (kwh or 0.0) * (of_energy or 0.0)


def lines(charges: Iterable[UsageRecord], rates: Rates) -> tuple[UsageLine, ...]:
    """A line for each week and user, in that order; what belongs to no lease comes
    under `SYSTEM_USER`.
    """
    by_place: dict[tuple[str, str], list[UsageRecord]] = {}
    for one in charges:
        user = SYSTEM_USER if one.lease_id == SYSTEM else one.user
        by_place.setdefault((week_name(one.day), user), []).append(one)
    return tuple(
        UsageLine(week=week, user=user, figures=figures(own, rates))
        for (week, user), own in sorted(by_place.items())
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
    try:
        monday = date.fromisocalendar(int(year), int(week), 1) if separator else None
    except ValueError:
        monday = None
    if monday is None or monday < EPOCH:
        raise InvalidRequest(
            f"week: {text[:32]!r} is not a week; write 2026-W48", field="week"
        )
    first = (monday - EPOCH).days
    return first, first + 6


def cells(charges: Sequence[UsageRecord], most: int) -> list[dict[str, Any]]:
    """What each cell used, the dearest first: by energy, then by time at work, then by
    time.

    The time between cells is there too, under an empty name.
    """
    by_cell: dict[str, list[UsageRecord]] = {}
    for one in charges:
        if one.lease_id != SYSTEM:
            by_cell.setdefault(one.cell, []).append(one)
    found = [_cell(name, own) for name, own in by_cell.items()]
    return sorted(found, key=_dearness)[:most]


def _dearness(row: dict[str, Any]) -> tuple[float, float, float, bool]:
    return (
        -(row["energy_wh"] or 0.0),
        -row["busy_seconds"],
        -row["seconds"],
        not row["cell"],
    )


def _cell(name: str, charges: Sequence[UsageRecord]) -> dict[str, Any]:
    every = figures(charges, Rates())
    peaks = [one.peak_bytes for one in charges if one.peak_bytes is not None]
    longest: dict[str, float] = {}
    for one in charges:  # one cell on two devices runs once
        longest[one.device_id] = longest.get(one.device_id, 0.0) + one.seconds
    return {
        "cell": name,
        "seconds": max(longest.values()),
        "busy_seconds": sum(one.busy_seconds for one in charges),
        "energy_wh": None if every.energy_kwh is None else every.energy_kwh * 1000,
        "peak_bytes": max(peaks, default=None),
    }
