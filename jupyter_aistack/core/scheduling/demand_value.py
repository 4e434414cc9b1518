"""What the users of one host ask for, and what capacity of its GPUs is worth for that:
the scarcity policy on one machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache

from jupyter_aistack.core.model.device import DeviceKind, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.spec import Spec
from jupyter_aistack.core.placement.capacity_value import CapacityValue, capacity_value
from jupyter_aistack.core.placement.demand import WHOLE, Demand, DemandMix
from jupyter_aistack.core.placement.placement import Capacity

MOST_SIZES = 8
"""Sizes priced at most, the most common: it must take no longer than a cycle may."""
_SHARED = frozenset({SliceKind.SHARE, SliceKind.MPS})


def demand_value(
    capacity: Capacity, leases: Iterable[Lease], waiting: Mapping[Spec, int]
) -> CapacityValue | None:
    """What capacity of the GPUs is worth to those who hold something or wait; None
    where there is nothing to choose.

    Args:
        leases: what is held.
        waiting: how many requests wait for each spec.
    """
    if len(capacity.inventory.of_kind(DeviceKind.GPU)) < 2:
        return None
    counts = Counter(
        _milli(slice_.fraction)
        for lease in leases
        for slice_ in lease.slices
        if slice_.kind in _SHARED
    )
    for spec, number in waiting.items():
        size = _size_of(spec, capacity)
        if size:
            counts[size] += capacity.count(spec) * number

    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES]
    # Rounded to powers of two, so that one request more does not change every price.
    return _value_of_sizes(
        frozenset((size, count.bit_length()) for size, count in common)
    )


def _size_of(spec: Spec, capacity: Capacity) -> int:
    """The thousandths of a device that a spec takes, on the first host that could hold
    a share of it; 0 where it takes no share.
    """
    for sizes in capacity.needs(spec).values():
        share = next(iter(sizes.values()), None)
        if share is not None and 0 < share < 1:
            return _milli(share)
    return 0


def _milli(share: Fraction) -> int:
    numerator, denominator = share.as_integer_ratio()
    return WHOLE * numerator // denominator


@lru_cache(maxsize=64)
def _value_of_sizes(sizes: frozenset[tuple[int, int]]) -> CapacityValue:
    mix = DemandMix()
    for size, bits in sorted(sizes):
        for _ in range(1 << (bits - 1)):
            mix.add(Demand(gpus=1, share_milli=size))
    return capacity_value(mix)
