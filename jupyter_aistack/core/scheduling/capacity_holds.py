"""Room that is kept for somebody: a reservation, the head of the queue, one for whom
leases have been asked back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.placement.device_capacity import CLOSE
from jupyter_aistack.core.placement.placement import (
    NOTHING_KEPT,
    Capacity,
    PlacementFailure,
)
from jupyter_aistack.core.placement.sizing import beside_share

from .fair_share import ends_at

BACKFILL_SECONDS = 3600.0
"""How long a request may be let pass one that goes first when nobody knows when that
one can start.
"""
LOAN_SECONDS = 600.0
"""The shortest time worth granting before a reservation begins."""


@dataclass(frozen=True, kw_only=True)
class CapacityHold:
    """Shares of devices that are not for everybody between two moments.

    Attributes:
        shares: by device id.
        starts_at, ends_at: from when to when, in seconds since the epoch.
        queue: leases of this queue may use it; empty for a keep that belongs to one
            request.
        name: the reservation's name; empty for a request's.
    """

    shares: Mapping[str, Fraction]
    starts_at: float
    ends_at: float = math.inf
    queue: str = ""
    name: str = ""

    def concerns(self, request: Request, now: float) -> bool:
        """Whether a lease for `request` that began now would be in its way."""
        if self.queue and request.queue == self.queue:
            return False
        end = math.inf if request.lease_seconds is None else now + request.lease_seconds
        return now < self.ends_at and end > self.starts_at

    def blocks(self, request: Request, now: float) -> bool:
        """Whether it is a reservation whose room `request` cannot have now, not even
        lent until it begins.
        """
        if not self.name or not self.concerns(request, now):
            return False
        return request.lease_seconds is not None or self.starts_at < now + LOAN_SECONDS


def kept_for_others(
    keeps: Iterable[CapacityHold], request: Request, now: float
) -> Mapping[str, Fraction]:
    """The shares that a lease for `request`, from now on, must leave alone."""
    shares: dict[str, Fraction] = {}
    for keep in keeps:
        if keep.concerns(request, now):
            for device_id, share in keep.shares.items():
                shares[device_id] = shares.get(device_id, Fraction(0)) + share
    return shares or NOTHING_KEPT


def reserved(
    reservations: Iterable[Reservation],
    room: Capacity,
    leases: Sequence[Lease],
    now: float,
) -> tuple[CapacityHold, ...]:
    """What reservations keep: placed where there will be room when their window begins,
    what members hold deducted.

    Args:
        room: what is free now; it is left as it is.
        leases: what is held now.
    """
    keeps: list[CapacityHold] = []
    for reservation in reservations:
        window = reservation.window(now)
        if window is None:
            continue
        then = room.copy()
        if (
            window[0] > now
        ):  # what ends before it begins, or must give way, is in nobody's way
            then.give(
                s
                for lease in leases
                if lease.preemptible or ends_at(lease) <= window[0]
                for s in lease.occupied
            )
        for keep in keeps:
            if keep.starts_at < window[1] and window[0] < keep.ends_at:
                _shut(then, keep)
        shares = _claim(reservation, then, _members(reservation, leases, window, now))
        if shares:
            keeps.append(
                CapacityHold(
                    shares=shares,
                    starts_at=window[0],
                    ends_at=window[1],
                    queue=reservation.queue,
                    name=reservation.name,
                )
            )
    return tuple(keeps)


def _members(
    reservation: Reservation,
    leases: Sequence[Lease],
    window: tuple[float, float],
    now: float,
) -> int:
    if window[0] > now:
        return 0
    return sum(lease.queue == reservation.queue for lease in leases)


def _claim(reservation: Reservation, room: Capacity, held: int) -> dict[str, Fraction]:
    shares: dict[str, Fraction] = {}
    for _ in range(max(0, reservation.count - held)):
        slices = room.place(reservation.spec, host=reservation.host)
        if isinstance(slices, PlacementFailure):
            break
        room.take(slices)
        for piece in slices:
            shares[piece.device_id] = (
                shares.get(piece.device_id, Fraction(0)) + piece.fraction
            )
    return shares


def _shut(room: Capacity, keep: CapacityHold) -> None:
    for device_id, share in keep.shares.items():
        room.hold(device_id, share)


class ReleaseTimes:
    """When held slices are known to be given back, device by device.

    Args:
        leases: what is held; `add` more as they are expected.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.leases = list(leases)
        self._by_device: dict[str, list[tuple[float, float, int]]] = {}
        for lease in self.leases:
            self._note(lease)

    def add(self, lease: Lease) -> None:
        """One more lease will end."""
        self.leases.append(lease)
        self._note(lease)

    def _note(self, lease: Lease) -> None:
        end = ends_at(lease)
        if math.isfinite(end):
            for piece in lease.occupied:
                self.free(piece, end)

    def free(self, piece: Slice, end: float) -> None:
        """A slice that is spoken for will be free at `end`."""
        share = piece.fraction.numerator / piece.fraction.denominator
        self._by_device.setdefault(piece.device_id, []).append(
            (end, share, piece.memory_bytes)
        )

    def copy(self) -> ReleaseTimes:
        """Ends of its own in the same state."""
        twin = ReleaseTimes()
        twin.leases = self.leases[:]
        twin._by_device = {
            device_id: ends[:] for device_id, ends in self._by_device.items()
        }
        return twin

    def release_to(self, device_id: str, profile: str, end: float) -> None:
        """The MIG instance of a device that is free at `end` is somebody else's from
        then on.
        """
        sought = (device_id, profile)
        theirs = (
            lease
            for lease in self.leases
            if any((p.device_id, p.profile) == sought for p in lease.slices)
        )
        lease = next((lease for lease in theirs if ends_at(lease) <= end), None)
        if lease is not None:
            self.leases.remove(lease)

    def start_on(
        self, device_id: str, share: Fraction, room: Capacity, now: float
    ) -> float:
        """When `share` of a device will be free as far as is known; infinity when it is
        not.
        """
        if room.is_free(device_id, share):
            return now
        device = room.device(device_id)
        if not device.is_healthy:
            return math.inf
        free = room.approx(device_id)
        memory = room.memory(device_id)
        wanted = share.numerator / share.denominator - CLOSE
        needed = share.numerator * device.memory_bytes // share.denominator
        for end, fraction, memory_bytes in sorted(self._by_device.get(device_id, ())):
            free = free + fraction
            memory = memory + memory_bytes
            if free >= wanted and memory >= needed:
                return max(now, end)
        return math.inf


def start_of(
    spec: Spec, room: Capacity, ends: ReleaseTimes, now: float, *, host: str = ""
) -> tuple[float, dict[str, Fraction]]:
    """When there will be room for `spec` as far as the ends of leases are known, and on
    which devices.

    Returns:
        Seconds since the epoch (infinity: nobody knows), and the share of each device
        it will take then; of what is equally near, the devices with most free.
    """
    if spec.unit is Unit.PROFILE:
        return _start_of_profile(spec, ends.leases, room, now)
    best: tuple[float, dict[str, Fraction]] = (math.inf, {})
    count = room.count(spec)
    for name, sizes in room.needs(spec, host).items():
        if len(sizes) < count:
            continue
        starts = sorted(
            (ends.start_on(i, size, room, now), -room.approx(i), i)
            for i, size in sizes.items()
        )[:count]
        shares = {device_id: sizes[device_id] for _, _, device_id in starts}
        beside = _beside(spec, room, name)
        at = max(
            [start for start, _, _ in starts]
            + [ends.start_on(i, s, room, now) for i, s in beside.items()]
        )
        if not best[1] or at < best[0]:
            best = at, {**shares, **beside}
    return best


def start_beside(
    keeps: Iterable[CapacityHold],
    spec: Spec,
    room: Capacity,
    ends: ReleaseTimes,
    now: float,
    *,
    host: str = "",
) -> tuple[float, dict[str, Fraction]]:
    """`start_of` for one that must do without what these keep, until they end."""
    for number, keep in enumerate(keeps):
        if number == 0:
            room = room.copy()
            ends = ends.copy()
        for device_id, share in keep.shares.items():
            room.hold(device_id, share)
            ends.free(room.piece(device_id, share), keep.ends_at)
    return start_of(spec, room, ends, now, host=host)


def _start_of_profile(
    spec: Spec, leases: Sequence[Lease], room: Capacity, now: float
) -> tuple[float, dict[str, Fraction]]:
    found = [
        (ends_at(lease), piece.device_id, piece.fraction)
        for lease in leases
        for piece in lease.slices
        if piece.profile == spec.profile
        and room.inventory.device(piece.device_id) is not None
    ]
    if not found:
        return math.inf, {}
    end, device_id, fraction = min(found)
    return max(now, end), {device_id: fraction}


def _beside(spec: Spec, room: Capacity, host: str) -> dict[str, Fraction]:
    if not spec.needs_host:
        return {}
    on_host = (device for device in room.inventory.devices if device.host == host)
    cpu = next((device for device in on_host if device.kind is DeviceKind.CPU), None)
    return {} if cpu is None else {cpu.id: beside_share(spec, cpu)}
