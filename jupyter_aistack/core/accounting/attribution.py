"""How the energy of a device is divided among the leases on it. Nothing here asks a
driver.

Of what a device's counter has moved by, the idle part (idle watts x time) is divided by
the share each lease was granted, and the rest, the dynamic part, by how active each
was. What is left (shares that are not held, processes of no lease, work that cannot be
attributed) is the system's. The parts add up to the counter exactly.

A lease that holds a whole device alone needs no figures of activity: all is its own.
Any other whose activity cannot be known is charged its idle part alone, and its energy
does not count as known for that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.model.lease import Lease

from .charges import (
    LEVELS,
    NO_LEVELS,
    SYSTEM,
    CellInterval,
    UsageRecord,
    day_of,
    level_of,
)
from .intervals import Interval, SliceHolding

NEGLIGIBLE_SECONDS = 1e-9
Parts = dict[str, tuple[int, int]]
"""By lease, or by cell of one, its idle and its dynamic millijoules."""


def split(
    millijoules: int,
    idle_millijoules: int,
    shares: Mapping[str, float],
    busy: Mapping[str, float],
    others: float | None,
) -> Parts:
    """Divide what a counter moved by. The sum of all parts, `SYSTEM`'s included, is
    `millijoules` exactly.

    The idle part goes by granted share, whether activity is known or not.

    Args:
        millijoules: to be divided.
        idle_millijoules: how much of it is drawn when nothing works.
        shares: the granted share of each lease, 0 to 1.
        busy: the activity of each lease; absent where unknown.
        others: activity of processes of no lease; None where activity is unknown.

    Returns:
        By lease; the dynamic part of those whose activity is unknown is in `SYSTEM`'s.
    """
    idle = min(max(idle_millijoules, 0), millijoules)
    dynamic = millijoules - idle
    total_share = max(1.0, sum(shares.values()))
    granted = _portions(idle, shares, total_share)
    worked: dict[str, int] = {}
    if others is None:
        owner = _sole_owner(shares)
        if owner is not None:
            granted = {owner: idle}
            worked = {owner: dynamic}
    else:
        known: dict[str, float] = {}
        foreign = others
        for lease, activity in busy.items():
            if lease in shares:
                known[lease] = activity
            else:
                foreign += activity
        total_activity = foreign + sum(known.values())
        worked = _portions(dynamic, known, total_activity)

    parts: Parts = {}
    for lease, idle_part in granted.items():
        dynamic_part = worked.get(lease, 0)
        parts[lease] = (idle_part, dynamic_part)
    return _with_rest(parts, idle, dynamic)


def _sole_owner(shares: Mapping[str, float]) -> str | None:
    """The lease that holds all of a device alone; None where there is none."""
    if len(shares) != 1:
        return None
    ((lease, share),) = shares.items()
    if share >= 1:
        return lease
    return None


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


def _with_rest(parts: Parts, idle: int, dynamic: int) -> Parts:
    """The parts, and what is left of each sum for the system."""
    idle_left = idle - sum(part[0] for part in parts.values())
    dynamic_left = dynamic - sum(part[1] for part in parts.values())
    return {**parts, SYSTEM: (idle_left, dynamic_left)}


def charges_of(
    interval: Interval,
    holders: Sequence[SliceHolding],
    idle_watts: float | None,
    cells: Sequence[CellInterval] = (),
) -> list[UsageRecord]:
    """What each lease used in an interval, and what is the system's.

    Args:
        interval: the interval.
        holders: the leases that held a part of its device, as `holdings` gives them.
        idle_watts: what the device draws when nothing works on it; None while that is
            unknown.
        cells: when cells ran, of whichever kernel.
    """
    parts = _parts(interval, holders, idle_watts)
    metered = frozenset() if parts is None else _metered(interval, holders)
    records = [
        record
        for holding in holders
        for record in _of_lease(
            interval,
            holding,
            cells,
            energy=(parts or {}).get(holding.lease.id, (0, 0)),
            is_metered=holding.lease.id in metered,
        )
    ]
    if parts is not None:
        records.append(_of_system(interval, holders, parts))
    return records


def _parts(
    interval: Interval, holders: Sequence[SliceHolding], idle_watts: float | None
) -> Parts | None:
    """The energy of an interval by lease; None where it is unknown."""
    whole = interval.millijoules
    if whole is None:
        return None
    idle = whole
    if idle_watts is not None:
        idle = round(idle_watts * interval.seconds * 1000)
    shares = _shares(interval, holders)
    if idle_watts is None:
        # All of it may be work: those whose activity is unknown are charged nothing.
        metered = _metered(interval, holders)
        shares = {lease: share for lease, share in shares.items() if lease in metered}
    return split(whole, idle, shares, interval.busy, interval.others)


def _shares(interval: Interval, holders: Sequence[SliceHolding]) -> dict[str, float]:
    """By lease, its share of the device averaged over the interval."""
    return {
        holding.lease.id: holding.share * holding.seconds / interval.seconds
        for holding in holders
    }


def charged_share(holding: SliceHolding, interval: Interval) -> float:
    """The share of the device that a lease is charged: its guarantee, used or not, and
    what was seen in use above it, of multiprocessors or of memory.

    What is unknown is not charged, and nothing beyond the lease's ceiling.
    """
    lease = holding.lease
    elastic = {slice_.device_id for slice_ in lease.elastic_slices}
    if lease.up_to is None or interval.device.id not in elastic:
        return holding.share
    measured = interval.busy.get(lease.id, 0.0)
    memory = interval.load.memory.get(lease.id)
    whole = interval.device.memory_bytes
    if memory is not None and interval.is_watched and whole:
        measured = max(measured, memory / whole)
    return max(holding.share, min(measured, float(lease.up_to)))


def _metered(interval: Interval, holders: Sequence[SliceHolding]) -> frozenset[str]:
    """The leases whose energy is known: their activity is, or all is their own."""
    if interval.others is not None:
        return frozenset(interval.busy)
    owner = _sole_owner(_shares(interval, holders))
    return frozenset() if owner is None else frozenset({owner})


def _of_system(
    interval: Interval, holders: Sequence[SliceHolding], parts: Parts
) -> UsageRecord:
    held = sum(charged_share(each, interval) * each.seconds for each in holders)
    return UsageRecord(
        **_where(interval),
        seconds=interval.seconds,
        share_seconds=max(0.0, interval.seconds - held),
        millijoules=sum(parts[SYSTEM]),
        metered_seconds=interval.seconds,
    )


def _of_lease(
    interval: Interval,
    holding: SliceHolding,
    cells: Sequence[CellInterval],
    *,
    energy: tuple[int, int],
    is_metered: bool,
) -> Iterator[UsageRecord]:
    """A lease's records of an interval: one for each cell that ran, and one for the
    time between cells.
    """
    lease = holding.lease
    whole = _record_of(interval, lease)
    times = _times(holding, whole.owner, cells)
    by_cell = _energy_by_cell(times, holding, energy)
    is_estimated = lease.id in interval.estimated
    activity = interval.busy.get(lease.id)
    memory = interval.load.memory.get(lease.id)
    is_memory_known = memory is not None and interval.is_watched
    density = holding.seconds / _working_seconds(times, holding)
    for cell, seconds in times.items():
        does_work = _does_work(cell, times)
        dense = density if does_work else 0.0
        yield replace(
            whole,
            cell=cell,
            seconds=seconds,
            share_seconds=charged_share(holding, interval) * seconds,
            millijoules=sum(by_cell[cell]),
            metered_seconds=seconds if is_metered else 0.0,
            estimated_millijoules=by_cell[cell][1] if is_estimated else 0,
            busy_seconds=(activity or 0.0) * seconds * dense,
            levels=_levels(activity, seconds, dense),
            byte_seconds=(memory or 0) * is_memory_known * seconds,
            memory_seconds=seconds if is_memory_known else 0.0,
            peak_bytes=memory,
        )


def _working_seconds(times: Mapping[str, float], holding: SliceHolding) -> float:
    """How long cells ran; all of the time where none did."""
    return sum(seconds for cell, seconds in times.items() if cell) or holding.seconds


def _does_work(cell: str, times: Mapping[str, float]) -> bool:
    """Whether work is charged to a cell, or to the time between cells (``""``).

    Between cells a kernel waits for its user: what worked meanwhile worked for the
    cells around. Where none ran, all of it is charged to that time.
    """
    return bool(cell) or len(times) == 1


def _energy_by_cell(
    times: Mapping[str, float], holding: SliceHolding, part: tuple[int, int]
) -> Parts:
    """A lease's parts by cell: the idle part by time, the dynamic part by time at
    work. The last cell takes what rounding has left, so that they add up exactly.
    """
    idle, dynamic = part
    working = _working_seconds(times, holding)
    idle_left = idle
    dynamic_left = dynamic
    energy: Parts = {}
    last = list(times)[-1]
    for cell, seconds in times.items():
        own_idle = min(idle_left, int(idle * seconds / holding.seconds))
        own_dynamic = 0
        if _does_work(cell, times):
            own_dynamic = min(dynamic_left, int(dynamic * seconds / working))
        if cell == last:
            own_idle = idle_left
            own_dynamic = dynamic_left
        idle_left -= own_idle
        dynamic_left -= own_dynamic
        energy[cell] = (own_idle, own_dynamic)
    return energy


def _record_of(interval: Interval, lease: Lease) -> UsageRecord:
    """A record of a lease with nothing on it yet."""
    return UsageRecord(
        **_where(interval),
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
    """How long each cell ran while the lease held the device; under ``""`` the time
    between cells, which comes first.
    """
    inside = _cell_times(holding, owner, cells)
    total = sum(inside.values())
    if total > holding.seconds:  # two clocks disagree
        scale = holding.seconds / total
        inside = {cell: seconds * scale for cell, seconds in inside.items()}
        total = holding.seconds
    between = holding.seconds - total
    if between > NEGLIGIBLE_SECONDS or not inside:
        return {"": between, **inside}
    return inside


def _cell_times(
    holding: SliceHolding, owner: str, cells: Sequence[CellInterval]
) -> dict[str, float]:
    kernel = (holding.lease.holder.user, owner)
    own = sorted(
        (cell for cell in cells if (cell.user, cell.owner) == kernel),
        key=lambda cell: cell.began_at,
    )
    # One cell runs at a time: a cell whose end was never reported, because its kernel
    # died, ended when the next cell began.
    next_starts = [*(cell.began_at for cell in own[1:]), holding.end]
    times: dict[str, float] = {}
    for cell, next_start in zip(own, next_starts, strict=False):
        end = next_start if cell.ended_at is None else cell.ended_at
        seconds = min(holding.end, end) - max(holding.start, cell.began_at)
        if seconds > 0:
            times[cell.cell] = times.get(cell.cell, 0.0) + seconds
    return times


def _levels(activity: float | None, seconds: float, dense: float) -> tuple[float, ...]:
    """`seconds` at the level of an activity that fell into a part of its time only,
    `dense` times as much of it.
    """
    if activity is None:
        return NO_LEVELS
    at = level_of(min(1.0, activity * dense))
    return tuple(seconds if number == at else 0.0 for number in range(len(LEVELS)))


def _where(interval: Interval) -> dict[str, Any]:
    device = interval.device
    return {
        "host": device.host,
        "device_id": device.id,
        "kind": "simulated" if device.simulated else device.kind.value,
        "day": day_of(interval.end),
    }
