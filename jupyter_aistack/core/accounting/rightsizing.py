"""Which size would have done, told from what a notebook really used. A rule, with no
clock and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.model.units import MIB, format_bytes

from .charges import LEVELS, SYSTEM, UsageRecord
from .usage_report import HOUR

LEAST_SECONDS = 3600.0
"""Of use; less says nothing about the next time."""
HISTORY_DAYS = 28
"""So far back advice looks."""
MEMORY_MARGIN = 1.15
"""Above the highest peak: allocators round up, and no two runs are alike."""
CONTEXT_BYTES = 512 * MIB
"""Beside that, for a CUDA context and the libraries in it, as `HEADROOM_BYTES` of the
GPU provider.
"""
NEARLY_FULL = 0.92
"""A slice whose memory was used so far is short of it."""
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
    charges: Iterable[UsageRecord],
    there_are: Sequence[SizeOption],
    memory_bytes: int,
) -> Advice:
    """What a notebook should ask for.

    Args:
        label: the notebook.
        charges: all of its use that counts.
        there_are: the sizes to choose from.
        memory_bytes: of a whole device.
    """
    held = [
        one
        for one in charges
        if one.lease_id != SYSTEM and one.kind != "cpu" and one.share
    ]
    if not held:
        return _unknown(label, "", "it has held no GPU yet")
    last = max(held, key=lambda one: one.day)
    own = [one for one in held if one.spec == last.spec]
    hours = sum(one.seconds for one in own) / HOUR
    active = _active_levels(own)
    peak = max((one.peak_bytes or 0 for one in own), default=0)
    at_work = sum(active)
    if last.kind == "simulated":
        return _unknown(
            label, last.spec, "nothing can be measured on a simulated device"
        )
    if at_work <= 0 or not peak:
        why = (
            "its memory or its activity could not be measured"
            if hours > LEAST_SECONDS / HOUR
            else _too_short(hours)
        )
        return _unknown(label, last.spec, why, hours)
    if hours * HOUR < LEAST_SECONDS:
        return _unknown(label, last.spec, _too_short(hours), hours)
    share = Fraction(last.share).limit_denominator(64)
    used = _Used(
        share,
        int(share * memory_bytes),
        peak,
        _held_by(active),
        sum(one.busy_seconds for one in own) / at_work,
    )
    return _verdict(label, last.spec, used, there_are, hours, _weeks(own))


@dataclass(frozen=True)
class _Used:
    share: Fraction
    memory_bytes: int
    peak_bytes: int
    needed_share: float
    activity: float  # share of the device

    @property
    def of_slice(self) -> float:
        return min(1.0, self.activity / float(self.share))

    @property
    def is_short(self) -> bool:
        """Whether it came close to the end of its memory, or over it."""
        return self.peak_bytes >= NEARLY_FULL * self.memory_bytes

    def is_held_by(self, size: SizeOption) -> bool:
        needed = self.peak_bytes * MEMORY_MARGIN + CONTEXT_BYTES
        return needed <= size.memory_bytes and self.needed_share <= size.share


def _verdict(
    label: str,
    spec: str,
    used: _Used,
    there_are: Sequence[SizeOption],
    hours: float,
    weeks: float,
) -> Advice:
    fitting = sorted(
        (size for size in there_are if used.is_held_by(size)),
        key=lambda size: size.share,
    )
    best = fitting[0] if fitting else None
    said = (
        f"asked {used.share} = {format_bytes(used.memory_bytes)}, peak {format_bytes(used.peak_bytes)}, "
        f"busy {used.of_slice:.0%}"
    )
    facts: dict[str, Any] = {
        "peak_bytes": used.peak_bytes,
        "activity": used.of_slice,
        "hours": hours,
    }
    if used.is_short and (best is None or best.share <= used.share):
        larger = [size for size in there_are if size.share > used.share]
        best = min(larger, key=lambda size: size.share, default=None)
    if best is not None and best.share < used.share:
        saved = float(used.share - best.share) * hours / weeks
        text = f"{said}: {best.name} would do; saves {saved:.1f} GPU-h a week"
        return Advice(
            label=label,
            verdict="less",
            asked=spec,
            advised=best.name,
            text=text,
            saved_gpu_hours=saved,
            **facts,
        )
    if best is not None and best.share > used.share:
        why = (
            "its memory was nearly all used"
            if used.is_short
            else "it needs more than it has"
        )
        return Advice(
            label=label,
            verdict="more",
            asked=spec,
            advised=best.name,
            text=f"{said}: {why}; ask {best.name}",
            **facts,
        )
    if best is None or used.is_short:
        return Advice(
            label=label,
            verdict="more",
            asked=spec,
            text=f"{said}: no size here holds it with room",
            **facts,
        )
    return Advice(
        label=label, verdict="fits", asked=spec, text=f"{said}: that fits", **facts
    )


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


def _active_levels(charges: Iterable[UsageRecord]) -> list[float]:
    """Seconds at each level of activity above none: how long a notebook waited for its
    user says nothing of size.
    """
    return [
        sum(seconds)
        for seconds in zip(*(one.levels[1:] for one in charges), strict=True)
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


def _weeks(charges: Sequence[UsageRecord]) -> float:
    days = [one.day for one in charges]
    return max(1.0, (max(days) - min(days) + 1) / 7)
