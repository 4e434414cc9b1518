"""Do the processes of a lease hold more memory than it has, and what is to be done
about it?

Limits of a driver hold each process to the slice, so that two may hold it twice
(NVIDIA/k8s-device-plugin#720); and where nothing but good will limits them, a process
may hold it all. So a lease's processes are added up at every level.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.context_memory import SLACK_BYTES, SLACK_SHARE
from jupyter_aistack.core.model.device import ProcessUse
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.units import format_bytes, format_duration

NEAR_SHARE = 0.9
CALM_SHARE = 0.85
"""Of its slice: from where on a lease is warned, and below what that is over. Between
the two it stays as it was.
"""

UNMEASURED = "it cannot be measured now, so nothing watches its bound"
MEMORY_KINDS = frozenset(
    {
        ConditionKind.MEMORY_EXCEEDED,
        ConditionKind.LIMIT_LOWERED,
        ConditionKind.MEMORY_PRESSURE,
        ConditionKind.MEMORY_UNKNOWN,
    }
)
"""What a lease may carry about its memory; at most one of them at a time."""


class MemoryAction(StrEnum):
    """What is done about a lease whose processes hold more than it has."""

    WARN = "warn"  # the user is notified
    INTERRUPT = "interrupt"  # the cell is interrupted
    TERMINATE = "terminate"  # the process that holds the most is ended, the kernel's own only if it is alone


class PressureLevel(StrEnum):
    CALM = "calm"
    NEAR = "near"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class MemoryFill:
    """How full a lease's slice is.

    Attributes:
        memory_bytes: what its processes hold.
        granted_bytes: what it has.
        processes: who holds it, the largest first; empty where only the sum is known.
    """

    memory_bytes: int
    granted_bytes: int
    processes: tuple[ProcessUse, ...] = ()

    @property
    def share(self) -> float:
        return self.memory_bytes / max(1, self.granted_bytes)

    @property
    def is_beyond_slack(self) -> bool:
        slack = min(SLACK_BYTES, int(self.granted_bytes * SLACK_SHARE))
        return self.memory_bytes > self.granted_bytes + slack


@dataclass(frozen=True, kw_only=True)
class WatchedLease:
    """Where a lease stands with its memory.

    Attributes:
        level: how full it is.
        condition: what its holder should know; None for nothing.
        acted_on: the process something has been done about since it was last calm; None
            for none.
    """

    level: PressureLevel = PressureLevel.CALM
    condition: Condition | None = None
    acted_on: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from one measurement.

    Attributes:
        watched: where the lease stands now.
        is_worse: it has come closer to its bound, or crossed it, since the last
            measurement.
        culprit: the process to do something about now; None for nothing to do.
    """

    watched: WatchedLease = field(default_factory=WatchedLease)
    is_worse: bool = False
    culprit: ProcessUse | None = None


def fullest(
    granted: Mapping[str, int],
    held: Mapping[str, Mapping[int, int | None] | None],
    pids: Collection[int],
    names: Mapping[int, str],
) -> MemoryFill | None:
    """How full the fullest of some processes' slices is; None when that cannot be
    known.

    Args:
        granted: bytes that belong to them, by UUID of the GPU or MIG instance.
        held: bytes each process holds there; None for a figure, or a list, that cannot
            be read.
        pids: the processes.
        names: what each process runs.
    """
    fills = [
        _fill(bytes_, held.get(uuid), pids, names) for uuid, bytes_ in granted.items()
    ]
    known = [fill for fill in fills if fill is not None]
    worst = max(known, key=lambda fill: fill.share, default=None)
    # A breach that was measured counts, whatever could not be measured beside it.
    is_breach = worst is not None and worst.share > 1
    is_complete = len(known) == len(fills)
    if is_breach or is_complete:
        return worst
    return None


def _fill(
    granted: int,
    held: Mapping[int, int | None] | None,
    pids: Collection[int],
    names: Mapping[int, str],
) -> MemoryFill | None:
    if held is None:
        return None
    own = {pid: memory for pid, memory in held.items() if pid in pids}
    known = {pid: memory for pid, memory in own.items() if memory is not None}
    if len(known) < len(own) and sum(known.values()) <= granted:
        return None
    processes = [
        ProcessUse(pid=pid, memory_bytes=memory, name=names.get(pid, ""))
        for pid, memory in known.items()
    ]
    processes.sort(key=lambda process: (-(process.memory_bytes or 0), process.pid))
    return MemoryFill(
        memory_bytes=sum(known.values()),
        granted_bytes=granted,
        processes=tuple(processes),
    )


def evaluate_memory(
    before: WatchedLease,
    fill: MemoryFill | None,
    *,
    action: MemoryAction,
    label: str,
    root: int | None,
    now: float,
) -> Judgement:
    """What one measurement of a lease's memory means, given where it stood.

    A lease is notified once that it comes near its bound or crosses it, and each
    process is acted on once, until the lease has been calm again. Memory that cannot be
    measured is a condition of its own, and no all-clear.

    Args:
        fill: what was measured; None when nothing could be.
        action: what is done about breaches.
        label: the notebook, or whatever else people call the holder.
        root: the process that must not be ended as long as another of the lease holds
            memory.
        now: seconds since the epoch.
    """
    if fill is None:
        unknown = new_condition(ConditionKind.MEMORY_UNKNOWN, UNMEASURED, now)
        return Judgement(watched=replace(before, condition=unknown))

    level = _level(before.level, fill)
    condition = before.condition
    if level is not before.level or _is_of_another(condition):
        condition = _condition(level, fill, label, now)
    watched = WatchedLease(
        level=level,
        condition=condition,
        acted_on=before.acted_on if level is PressureLevel.OVER else None,
    )

    culprit = _culprit(watched, fill, root) if action is not MemoryAction.WARN else None
    if culprit is not None:
        watched = replace(
            watched,
            acted_on=culprit.pid,
            condition=_condition(level, fill, label, now),
        )
    return Judgement(
        watched=watched, is_worse=_RANK[level] > _RANK[before.level], culprit=culprit
    )


def evaluate_lowered(
    before: WatchedLease,
    fill: MemoryFill,
    *,
    label: str,
    seconds_left: float,
    now: float,
) -> Judgement:
    """What it means that a lease holds more than it may since others came: its holder is
    told what to free, and for a while nothing is done about it.

    Args:
        fill: what it holds, of what it may hold from now on.
        label: as in `evaluate_memory`.
        seconds_left: for how long it is left alone.
    """
    left = format_duration(seconds_left)
    words = (
        f"{sentence(fill, label)}, for others need the rest; free it within {left}, or "
        "it is over its memory"
    )
    condition = new_condition(ConditionKind.LIMIT_LOWERED, words, now)
    known = before.condition
    if known is not None and known.kind is condition.kind:
        condition = known
    watched = WatchedLease(level=PressureLevel.NEAR, condition=condition)
    return Judgement(watched=watched, is_worse=before.level is PressureLevel.CALM)


def _level(before: PressureLevel, fill: MemoryFill) -> PressureLevel:
    if fill.share > 1 or (before is PressureLevel.OVER and fill.share >= NEAR_SHARE):
        return PressureLevel.OVER
    if fill.share >= NEAR_SHARE or (
        before is not PressureLevel.CALM and fill.share >= CALM_SHARE
    ):
        return PressureLevel.NEAR
    return PressureLevel.CALM


def _culprit(
    watched: WatchedLease, fill: MemoryFill, root: int | None
) -> ProcessUse | None:
    """The largest process, others before the root; none while the process acted on last
    is still there.
    """
    holding = [process for process in fill.processes if process.memory_bytes]
    if (
        not fill.is_beyond_slack
        or not holding
        or watched.acted_on in {process.pid for process in holding}
    ):
        return None
    return next((process for process in holding if process.pid != root), holding[0])


def _is_of_another(condition: Condition | None) -> bool:
    """Whether a condition says nothing of how full the lease is."""
    others = (ConditionKind.MEMORY_UNKNOWN, ConditionKind.LIMIT_LOWERED)
    return condition is not None and condition.kind in others


def _condition(
    level: PressureLevel, fill: MemoryFill, label: str, now: float
) -> Condition | None:
    words = sentence(fill, label)
    if level is PressureLevel.NEAR:
        return new_condition(ConditionKind.MEMORY_PRESSURE, words, now)
    if level is PressureLevel.OVER:
        advice = f"{words}; free some, or ask for a larger slice"
        return new_condition(ConditionKind.MEMORY_EXCEEDED, advice, now)
    return None


def sentence(fill: MemoryFill, label: str) -> str:
    """Who holds how much of what: ``python 4711 of train.ipynb holds 38.2 GiB of 35.0
    GiB``.
    """
    held = format_bytes(fill.memory_bytes)
    granted = format_bytes(fill.granted_bytes)
    amounts = f"{held} of {granted}"
    holding = [process for process in fill.processes if process.memory_bytes]
    if not holding:
        return f"{label} holds {amounts}"
    largest = process_name(holding[0])
    if len(holding) == 1:
        return f"{largest} of {label} holds {amounts}"
    most = format_bytes(holding[0].memory_bytes or 0)
    count = len(holding)
    return f"{count} processes of {label} hold {amounts}, {largest} the most ({most})"


def process_name(process: ProcessUse) -> str:
    """A process for people: program and id."""
    return f"{process.name or 'process'} {process.pid}"


def memory_update(condition: Condition | None) -> ConditionUpdate:
    """The update by which a lease has this memory condition and no other."""
    put = () if condition is None else (condition,)
    return ConditionUpdate(put=put, clear=MEMORY_KINDS)


def memory_condition(lease: Lease) -> Condition | None:
    """The memory condition of a lease; None without."""
    of_memory = (each for each in lease.conditions if each.kind in MEMORY_KINDS)
    return next(of_memory, None)


def granted_together(slices: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Bytes by UUID, over all slices (UUID, bytes) that the same processes use."""
    granted: dict[str, int] = {}
    for uuid, memory in slices:
        before = granted.get(uuid, 0)
        granted[uuid] = before + memory
    return granted


_RANK = {level: rank for rank, level in enumerate(PressureLevel)}
