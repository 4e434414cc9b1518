"""What a GPU with some room left is still worth, given the sizes that people ask for.

A free share of 350/1000 is worth a third of a GPU where tasks of 320 are common, and
nothing where all ask for halves. The worth of a size is the price at which the best
packing of all expected tasks breaks even: the dual of the cutting stock program
(Gilmore and Gomory, *A linear programming approach to the cutting-stock problem*,
Operations Research 9, 1961), found by generating patterns with a knapsack. The worth of
a hole is the dearest set of tasks that fits in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from math import gcd

from .demand import WHOLE, DemandMix

TOLERANCE = 1e-9
MAX_SIZES = 40
"""Sizes priced at most, the most wanted first: each costs a row in the program, and the
rest hardly move the prices.
"""
TILT = 0.15
"""How far the mix is tilted towards small and towards large sizes, to see which prices
hang by a thread.
"""
FINEST = 5
"""The finest step, in thousandths, that the tables follow exactly."""
COARSE_STEPS = 240
"""Steps where the sizes share no unit that coarse: halves, thirds, quarters, fifths,
sixths and eighths stay exact.
"""
FREE_OF_LOSS = 0.02
"""A filling that loses less than this share of a GPU counts as one that a good packing
would choose.
"""


@dataclass(frozen=True, kw_only=True)
class CapacityValue:
    """Tables over the free share of one GPU, from none (index 0) to a whole one (index
    `steps`).

    Attributes:
        steps: how many equal steps make a whole GPU.
        value: GPUs' worth of tasks that still fit, 0 to 1.
        cpu_milli: CPU that the tasks which will fill it are expected to need.
        memory_mib: host memory that they are expected to need.
    """

    steps: int
    value: Sequence[float]
    cpu_milli: Sequence[float]
    memory_mib: Sequence[float]

    def level(self, free_milli: int) -> int:
        """The index of a GPU with that much left; what does not make a full step is not
        counted.
        """
        return free_milli * self.steps // WHOLE

    def taken(self, share_milli: int) -> int:
        """How many levels a share takes away, rounded up."""
        return _taken(share_milli, self.steps)

    def value_lost(self, free_milli: int, share_milli: int) -> float:
        """How much more a GPU is devalued by cutting the share from it than a perfectly
        matching one would be.
        """
        before = self.level(free_milli)
        return self.value[before] - self.value[max(0, before - self.taken(share_milli))]


def capacity_value(mix: DemandMix) -> CapacityValue:
    """The tables for a mix of demands. Of an empty mix nothing is known: there a hole
    is worth its size.
    """
    wanted = _wanted(mix)
    unit = reduce(gcd, wanted, WHOLE)
    steps = WHOLE // unit if wanted and unit >= FINEST else COARSE_STEPS
    if not wanted:
        value = [level / steps for level in range(steps + 1)]
    else:
        sizes: dict[int, float] = {}
        for size, count in wanted.items():
            step = _taken(size, steps)
            sizes[step] = sizes.get(step, 0) + count
        value = _values(_steady_prices(sizes, steps), steps)
    cpu, memory = _needs(mix, value, steps)
    return CapacityValue(steps=steps, value=value, cpu_milli=cpu, memory_mib=memory)


def rank(
    worth: CapacityValue, free_milli: Sequence[int], share_milli: int
) -> list[int]:
    """The positions of the GPUs of one host that hold the share, the best to cut it
    from first.

    Least worth is lost on the first; among equals least is left over, so that whole
    GPUs stay whole.
    """
    fitting = [
        position for position, free in enumerate(free_milli) if free >= share_milli
    ]
    return sorted(
        fitting,
        key=lambda i: (
            round(worth.value_lost(free_milli[i], share_milli), 6),
            free_milli[i],
            i,
        ),
    )


def prices(sizes: Mapping[int, float], capacity: int) -> dict[int, float]:
    """The dual price of each size in the cutting stock program: no pattern that fits
    `capacity` is worth more than 1.

    Args:
        sizes: how many are wanted of each size, 0 < size < capacity.
        capacity: the size of one bin.

    The revised simplex method with one row for each size; a column enters while the
    knapsack at the present prices finds a pattern worth more than 1.
    """
    order = sorted(sizes)
    rows = range(len(order))
    inverse = [
        [float(i == j) / (capacity // size) for j in rows]
        for i, size in enumerate(order)
    ]
    # A tiny tilt keeps the simplex from walking in circles among equal bases.
    amount = [
        (sizes[size] + 1e-7 * (i + 1)) / (capacity // size)
        for i, size in enumerate(order)
    ]
    found: list[float] = []
    for _ in range(20 * len(order) + 50):
        found = [sum(row[j] for row in inverse) for j in rows]
        pattern, worth = _knapsack(order, found, capacity)
        if worth <= 1 + TOLERANCE:
            break
        _pivot(
            inverse,
            amount,
            [sum(row[j] * n for j, n in pattern.items()) for row in inverse],
        )
    return {size: max(0.0, price) for size, price in zip(order, found, strict=True)}


def _steady_prices(sizes: Mapping[int, float], capacity: int) -> dict[int, float]:
    """The mean of the prices for the mix and for two slightly tilted ones.

    Where partners balance (as many of 650 as of 320), the program has many solutions
    that share the worth of a GPU among them quite differently, and one task more of
    either kind turns it over. The mean is a calm one of them.
    """
    found = dict.fromkeys(sizes, 0.0)
    for tilt in (-TILT, 0.0, TILT):
        tilted = {
            size: count * (1 + tilt * (2 * size / capacity - 1))
            for size, count in sizes.items()
        }
        for size, price in prices(tilted, capacity).items():
            found[size] += price / 3
    return found


def _pivot(
    inverse: list[list[float]], amount: list[float], column: Sequence[float]
) -> None:
    """Bring a pattern into the basis, in place."""
    out = min(
        (i for i, entry in enumerate(column) if entry > TOLERANCE),
        key=lambda i: amount[i] / column[i],
    )
    inverse[out] = [entry / column[out] for entry in inverse[out]]
    amount[out] /= column[out]
    for i, entry in enumerate(column):
        if i != out and entry:
            inverse[i] = [
                a - entry * b for a, b in zip(inverse[i], inverse[out], strict=True)
            ]
            amount[i] = max(0.0, amount[i] - entry * amount[out])


def _knapsack(
    order: Sequence[int], price: Sequence[float], capacity: int
) -> tuple[dict[int, int], float]:
    """The dearest pattern that fits, as count by row, and its worth."""
    best = [0.0] * (capacity + 1)
    taken = [-1] * (capacity + 1)
    for row, size in enumerate(order):
        gain = price[row]
        if gain <= TOLERANCE:
            continue
        for room in range(size, capacity + 1):
            if best[room - size] + gain > best[room] + TOLERANCE:
                best[room] = best[room - size] + gain
                taken[room] = row
    pattern: dict[int, int] = {}
    room = capacity
    while room > 0:
        row = taken[room]
        if row < 0:
            break
        pattern[row] = pattern.get(row, 0) + 1
        room -= order[row]
    return pattern, best[capacity]


def _taken(share_milli: int, steps: int) -> int:
    return -(-share_milli * steps // WHOLE)


def _wanted(mix: DemandMix) -> dict[int, float]:
    """How many are asked of each share below a whole GPU, the most wanted sizes
    only.
    """
    counts: dict[int, float] = {}
    for demand, count in mix.items():
        if 0 < demand.share_milli < WHOLE:
            counts[demand.share_milli] = (
                counts.get(demand.share_milli, 0) + count * demand.gpus
            )
    kept = sorted(counts, key=lambda size: (-size * counts[size], size))[:MAX_SIZES]
    return {size: counts[size] for size in kept}


def _values(price: Mapping[int, float], steps: int) -> list[float]:
    """The knapsack's worth for every capacity up to a whole GPU, which is always worth
    1.
    """
    value = [0.0] * (steps + 1)
    for size, gain in sorted(price.items()):
        for room in range(size, steps + 1):
            value[room] = max(value[room], value[room - size] + gain)
    value[steps] = 1.0
    return [min(1.0, worth) for worth in accumulate(value, max)]


def _needs(
    mix: DemandMix, value: Sequence[float], steps: int
) -> tuple[list[float], list[float]]:
    """CPU and memory expected to be used on a GPU of each level, if it is filled
    without loss.
    """
    pieces = list(_pieces(mix, steps))
    alone = {piece[0]: _alone(value, piece[0]) for piece in pieces}
    cpu = [0.0] * len(value)
    memory = [0.0] * len(value)
    for room in range(1, len(value)):
        if value[room] <= TOLERANCE:
            continue
        good = [
            p
            for p in pieces
            if p[0] <= room
            and value[room] - value[room - p[0]] <= alone[p[0]] + FREE_OF_LOSS
        ]
        total = sum(p[1] for p in good)
        if not total:
            cpu[room] = cpu[room - 1]
            memory[room] = memory[room - 1]
            continue
        cpu[room] = sum(n * (c + cpu[room - s]) for s, n, c, _ in good) / total
        memory[room] = sum(n * (m + memory[room - s]) for s, n, _, m in good) / total
    return cpu, memory


def _pieces(mix: DemandMix, steps: int) -> list[tuple[int, float, float, float]]:
    """By size in steps: how many GPUs or shares of it are asked for, and the mean CPU
    and memory beside each.
    """
    sums: dict[int, list[float]] = {}
    for demand, count in mix.items():
        if demand.gpus:
            entry = sums.setdefault(_taken(demand.share_milli, steps), [0.0, 0.0, 0.0])
            entry[0] += count * demand.gpus
            entry[1] += count * demand.cpu_milli
            entry[2] += count * demand.memory_mib
    return [
        (size, n, cpu / n, memory / n)
        for size, (n, cpu, memory) in sorted(sums.items())
    ]


def _alone(value: Sequence[float], size: int) -> float:
    """What a size is worth: the least that it takes from any level."""
    return min(value[room] - value[room - size] for room in range(size, len(value)))
