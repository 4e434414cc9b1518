"""What people of one host ask for, and what room on its GPUs is worth for that: the
scarcity policy on one machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from jupyter_aistack.core.model.device import DeviceKind, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.placement.capacity_value import CapacityValue, capacity_value
from jupyter_aistack.core.placement.demand import WHOLE, Demand, DemandMix
from jupyter_aistack.core.placement.placement import Capacity

from .queue_order import RequestGroup

MOST_SIZES = 8
"""Sizes priced at most, the most common: it must take no longer than a cycle may."""
_SHARED = frozenset({SliceKind.SHARE, SliceKind.MPS})


def demand_value(
    room: Capacity, leases: Iterable[Lease], groups: Sequence[RequestGroup]
) -> CapacityValue | None:
    """What room on the GPUs is worth to those who hold something or wait; None where
    there is nothing to choose.
    """
    if len(room.inventory.of_kind(DeviceKind.GPU)) < 2:
        return None
    counts = Counter(
        _milli(piece.fraction)
        for lease in leases
        for piece in lease.slices
        if piece.kind in _SHARED
    )
    for group in groups:
        for sizes in room.needs(group.head.spec).values():
            share = next(iter(sizes.values()), None)
            if share is not None and 0 < share < 1:
                counts[_milli(share)] += room.count(group.head.spec) * len(
                    group.requests
                )
                break
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES]
    # Rounded to powers of two, so that one request more does not change every price.
    return _worth_of_sizes(
        frozenset((size, count.bit_length()) for size, count in common)
    )


def _milli(share: Fraction) -> int:
    return WHOLE * share.numerator // share.denominator


@lru_cache(maxsize=64)
def _worth_of_sizes(sizes: frozenset[tuple[int, int]]) -> CapacityValue:
    mix = DemandMix()
    for size, bits in sorted(sizes):
        for _ in range(1 << (bits - 1)):
            mix.add(Demand(gpus=1, share_milli=size))
    return capacity_value(mix)
