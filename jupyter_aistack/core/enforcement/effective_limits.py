"""How much of its device each lease with a ceiling may use now: what it was granted, and
a fair part of what nobody has leased, up to its ceiling.

What is free is divided in proportion to the guarantees, as Run:ai and KAI divide what is
over quota; who may use less than that leaves the rest to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, Slice
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.limit import SliceLimit, limited
from jupyter_aistack.core.model.units import MIB

FOREIGN_STEP = 256 * MIB
"""Memory of others counts in whole steps: it moves by a few MiB all the time, and each
change of a limit is written down."""


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A slice that takes capacity of a device.

    Attributes:
        lease_id, token: whose it is.
        share, memory_bytes, cores: what is guaranteed.
        most: the share that it may use at most; None where it may use no more.
    """

    lease_id: str
    token: int
    share: Fraction
    memory_bytes: int
    cores: tuple[int, ...]
    most: Fraction | None


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """By how much one guarantee may grow, and its weight in the division."""

    token: int
    room: Fraction
    weight: Fraction

    @property
    def need(self) -> Fraction:
        """Its room, by weight."""
        return self.room / self.weight


def device_limits(
    device: Device, leases: Iterable[Lease], returning: frozenset[str] = frozenset()
) -> dict[str, SliceLimit]:
    """What each lease with a ceiling may use of a device now, by lease id.

    The same leases give the same limits. Their sum is no more than the device has, as
    long as the guarantees are not.

    Args:
        leases: the live leases of the host.
        returning: ids of suspended leases that are coming back: what they were granted
            is theirs again.
    """
    held = _held_on(device, leases, returning)
    shares = _divided_shares(held)
    memory = _divided_memory(device, held)
    cores = _divided_cores(device, held, shares)

    limits: dict[str, SliceLimit] = {}
    for each in held:
        if each.most is None:
            continue
        share = each.share + shares[each.token]
        memory_bytes = each.memory_bytes + memory[each.token]
        limits[each.lease_id] = SliceLimit(
            device_id=device.id,
            fraction=share,
            memory_bytes=memory_bytes,
            cores=cores[each.token],
        )
    return limits


def _held_on(
    device: Device, leases: Iterable[Lease], returning: frozenset[str]
) -> list[_Held]:
    held: list[_Held] = []
    for lease in leases:
        occupied = lease.occupied
        if lease.id in returning:
            occupied = lease.slices
        on_device = (each for each in occupied if each.device_id == device.id)
        held.extend(_hold(lease, slice_) for slice_ in on_device)
    held.sort(key=lambda each: each.token)
    return held


def _hold(lease: Lease, slice_: Slice) -> _Held:
    most = None
    if lease.state is LeaseState.RELEASING:
        # Until it has ended it may use what it could, and grows no more.
        slice_ = limited(slice_, lease.limits)
    elif lease.up_to is not None and slice_ in lease.elastic_slices:
        most = max(slice_.fraction, lease.up_to)
    return _Held(
        lease_id=lease.id,
        token=lease.token,
        share=slice_.fraction,
        memory_bytes=slice_.memory_bytes,
        cores=slice_.cores,
        most=most,
    )


def _divided(free: Fraction, claims: Iterable[_Claim]) -> dict[int, Fraction]:
    """The part of each claim, by token: in proportion to the weights, and none above
    its room.
    """
    # Who needs least for its weight first: what it leaves is the others'.
    by_need = sorted(claims, key=lambda claim: (claim.need, claim.token))
    weight = Fraction(0)
    for claim in by_need:
        weight += claim.weight

    parts: dict[int, Fraction] = {}
    left = max(free, Fraction(0))
    for claim in by_need:
        fair = left
        fair *= claim.weight
        fair /= weight
        part = min(claim.room, fair)
        parts[claim.token] = part
        left -= part
        weight -= claim.weight
    return parts


def _divided_shares(held: Sequence[_Held]) -> dict[int, Fraction]:
    """By token, the share of the device that is added to each guarantee."""
    free = Fraction(1)
    claims = []
    for each in held:
        free -= each.share
        if each.most is None:
            continue
        claim = _Claim(
            token=each.token,
            room=each.most - each.share,
            weight=each.share,
        )
        claims.append(claim)
    return _divided(free, claims)


def _divided_memory(device: Device, held: Sequence[_Held]) -> dict[int, int]:
    """By token, the bytes that are added to each guarantee."""
    free = _memory_of_leases(device)
    claims = []
    for each in held:
        free -= each.memory_bytes
        if each.most is None:
            continue
        most_bytes = int(each.most * device.memory_bytes)
        room = Fraction(most_bytes - each.memory_bytes)
        claim = _Claim(
            token=each.token,
            room=max(room, Fraction(0)),
            weight=each.share,
        )
        claims.append(claim)
    parts = _divided(Fraction(free), claims)
    return {token: int(part) for token, part in parts.items()}


def _memory_of_leases(device: Device) -> int:
    """Bytes that leases may have together. What may be others' is nobody's."""
    foreign = device.foreign_memory_bytes
    if foreign is None:
        return 0
    steps = -(-foreign // FOREIGN_STEP)
    return device.memory_bytes - steps * FOREIGN_STEP


def _divided_cores(
    device: Device, held: Sequence[_Held], shares: Mapping[int, Fraction]
) -> dict[int, tuple[int, ...]]:
    """By token, the cores of each: its own, and of those that no lease has as many as
    its share is worth.
    """
    taken: set[int] = set()
    for each in held:
        taken.update(each.cores)
    free = [core for core in device.cores if core not in taken]

    cores: dict[int, tuple[int, ...]] = {}
    for each in held:
        if each.most is None:
            continue
        share = each.share + shares[each.token]
        worth = int(share * len(device.cores))
        more = worth - len(each.cores)
        more = max(0, more)
        own = [*each.cores, *free[:more]]
        own.sort()
        cores[each.token] = tuple(own)
        free = free[more:]
    return cores
