"""Which size a notebook should ask for, given what it has really used: a rule, with no
clock and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.model.context_memory import CONTEXT_BYTES
from jupyter_aistack.core.model.units import format_bytes

from .charges import LEVELS, SYSTEM, UsageRecord
from .usage_report import HOUR

LEAST_SECONDS = 3600.0
"""Of use; less says nothing about the next time."""
HISTORY_DAYS = 28
"""So far back advice looks."""
MEMORY_MARGIN = 1.15
"""Above the highest peak: allocators round up, and no two runs are alike."""
NEARLY_FULL = 0.92
"""A slice whose memory was used so far is short of it."""
NOT_MEASURED = "its memory or its activity could not be measured"
MOST = 0.95
"""The part of the time at work that a size must hold the activity of."""


@dataclass(frozen=True, kw_only=True)
class SizeOption:
    """A size that can be asked for.

    Attributes:
        name: how it is asked for: ``1/8``, ``1g.18gb``.
        share: its share of a device.
        memory_bytes: its memory.
    """

    name: str
    share: Fraction
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to ask for next time.

    Attributes:
        label: the notebook.
        verdict: ``less`` would do, ``more`` is needed, it ``fits``, or ``unknown``.
        asked: what was asked for last.
        advised: what to ask for; empty for the same.
        text: the advice in one sentence.
        peak_bytes: the most memory it used on one device; None where that was not seen.
        activity: mean activity while it worked, as a share of its slice; None where
            that was not seen.
        hours: how long it was held.
        saved_gpu_hours: GPU-hours a week that the smaller size would leave to others.
    """

    label: str
    verdict: str
    asked: str
    advised: str = ""
    text: str
    peak_bytes: int | None = None
    activity: float | None = None
    hours: float = 0.0
    saved_gpu_hours: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it goes on the wire."""
        return dict(vars(self))


def sizes(memory_bytes: int) -> tuple[SizeOption, ...]:
    """The shares that are commonly asked for of a device with so much memory."""
    shares = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))
    return tuple(
        SizeOption(name=str(share), share=share, memory_bytes=int(share * memory_bytes))
        for share in shares
    )


def advise(
    label: str,
    records: Iterable[UsageRecord],
    options: Sequence[SizeOption],
    memory_bytes: int,
) -> Advice:
    """What a notebook should ask for.

    Args:
        label: the notebook.
        records: all of its use that counts.
        options: the sizes to choose from.
        memory_bytes: of a whole device.
    """
    held = [record for record in records if _counts(record)]
    if not held:
        return _unknown(label, "", "it has held no GPU yet")
    last = max(held, key=lambda record: record.day)
    if last.kind == "simulated":
        why = "nothing can be measured on a simulated device"
        return _unknown(label, last.spec, why)

    own = [record for record in held if record.spec == last.spec]
    seconds = sum(record.seconds for record in own)
    used = _used(own, last, memory_bytes)
    if seconds < LEAST_SECONDS:
        hours = seconds / HOUR
        return _unknown(label, last.spec, _too_short(hours), hours)
    if used is None:
        return _unknown(label, last.spec, NOT_MEASURED, seconds / HOUR)
    return _advice(label, last.spec, used, options)


def _used(
    records: Sequence[UsageRecord], last: UsageRecord, memory_bytes: int
) -> _Used | None:
    """What a notebook has used of what it held; None where memory or activity could not
    be measured.
    """
    active = _active_levels(records)
    at_work = sum(active)
    peak = max((record.peak_bytes or 0 for record in records), default=0)
    if at_work <= 0 or not peak:
        return None
    # What a ceiling let it use above its guarantee is charged as well.
    guaranteed = min((record.share for record in records), default=last.share)
    share = Fraction(guaranteed).limit_denominator(64)
    needed_share = _held_by(active)
    is_estimate = any(record.estimated_millijoules for record in records)
    if is_estimate:  # what was divided by share does not show that more is needed
        needed_share = min(needed_share, float(share))
    return _Used(
        share=share,
        memory_bytes=int(share * memory_bytes),
        peak_bytes=peak,
        needed_share=needed_share,
        activity=sum(record.busy_seconds for record in records) / at_work,
        hours=sum(record.seconds for record in records) / HOUR,
        weeks=_weeks(records),
        is_estimate=is_estimate,
    )


def _counts(record: UsageRecord) -> bool:
    """Whether a record is of a lease that held a part of a GPU."""
    return record.lease_id != SYSTEM and record.kind != "cpu" and bool(record.share)


@dataclass(frozen=True, kw_only=True)
class _Used:
    """What a notebook has used of what it held.

    Attributes:
        share: the share of a device that it held.
        memory_bytes: its memory.
        peak_bytes: the most it used of that.
        needed_share: the share that would have held its activity.
        activity: mean activity while it worked, as a share of the device.
        hours: how long it was held.
        weeks: over how many weeks.
        is_estimate: the activity is, in part: work of several leases, divided by share.
    """

    share: Fraction
    memory_bytes: int
    peak_bytes: int
    needed_share: float
    activity: float
    hours: float
    weeks: float
    is_estimate: bool = False

    @property
    def of_slice(self) -> float:
        """The activity as a share of its slice."""
        return min(1.0, self.activity / float(self.share))

    @property
    def is_short(self) -> bool:
        """Whether it came close to the end of its memory, or over it."""
        return self.peak_bytes >= NEARLY_FULL * self.memory_bytes

    def is_held_by(self, size: SizeOption) -> bool:
        """Whether that size would have done."""
        needed = self.peak_bytes * MEMORY_MARGIN + CONTEXT_BYTES
        return needed <= size.memory_bytes and self.needed_share <= size.share

    def best_of(self, options: Sequence[SizeOption]) -> SizeOption | None:
        """The smallest size that would have done; a size larger than it held where that
        was short of memory.
        """
        able = [size for size in options if self.is_held_by(size)]
        best = min(able, key=_share_of, default=None)
        is_larger = best is not None and best.share > self.share
        if not self.is_short or is_larger:
            return best
        larger = [size for size in options if size.share > self.share]
        return min(larger, key=_share_of, default=None)


def _share_of(size: SizeOption) -> Fraction:
    return size.share


def _advice(
    label: str, spec: str, used: _Used, options: Sequence[SizeOption]
) -> Advice:
    """The advice for a notebook that was measured for long enough."""
    advice = Advice(
        label=label,
        verdict="fits",
        asked=spec,
        text=f"{_facts(used)}: that fits",
        peak_bytes=used.peak_bytes,
        activity=used.of_slice,
        hours=used.hours,
    )
    best = used.best_of(options)
    if best is not None and best.share < used.share:
        return _smaller(advice, used, best)
    if best is not None and best.share > used.share:
        return _larger(advice, used, best)
    if best is None or used.is_short:
        text = f"{_facts(used)}: no size here holds it with a margin"
        return replace(advice, verdict="more", text=text)
    return advice


def _smaller(advice: Advice, used: _Used, best: SizeOption) -> Advice:
    saved = float(used.share - best.share) * used.hours / used.weeks
    return replace(
        advice,
        verdict="less",
        advised=best.name,
        text=f"{_facts(used)}: {best.name} would do; saves {saved:.1f} GPU-h a week",
        saved_gpu_hours=saved,
    )


def _larger(advice: Advice, used: _Used, best: SizeOption) -> Advice:
    why = "it needs more than it has"
    if used.is_short:
        why = "its memory was nearly all used"
    text = f"{_facts(used)}: {why}; ask {best.name}"
    return replace(advice, verdict="more", advised=best.name, text=text)


def _facts(used: _Used) -> str:
    size = format_bytes(used.memory_bytes)
    peak = format_bytes(used.peak_bytes)
    busy = f"busy {used.of_slice:.0%}{' (an estimate)' if used.is_estimate else ''}"
    return f"asked {used.share} = {size}, peak {peak}, {busy}"


def _unknown(label: str, spec: str, why: str, hours: float = 0.0) -> Advice:
    return Advice(
        label=label,
        verdict="unknown",
        asked=spec,
        text=f"no advice yet: {why}",
        hours=hours,
    )


def _too_short(hours: float) -> str:
    return f"{hours:.1f} h of use are too short a history; {LEAST_SECONDS / HOUR:.0f} h is needed"


def _active_levels(records: Iterable[UsageRecord]) -> list[float]:
    """Seconds at each level of activity above none: how long a notebook waited for its
    user says nothing of size.
    """
    return [
        sum(seconds)
        for seconds in zip(*(record.levels[1:] for record in records), strict=True)
    ]


def _held_by(active: Sequence[float]) -> float:
    """The share of a device that held the activity `MOST` of the time at work."""
    passed = 0.0
    whole = sum(active)
    for end, seconds in zip(LEVELS[1:], active, strict=True):
        passed += seconds
        if passed >= MOST * whole:
            return end
    return LEVELS[-1]


def _weeks(records: Sequence[UsageRecord]) -> float:
    days = [record.day for record in records]
    return max(1.0, (max(days) - min(days) + 1) / 7)
