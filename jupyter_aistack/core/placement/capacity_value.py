"""What a GPU that is partly free is still worth, given the sizes that people ask for.

A free share of 350/1000 is worth a third of a GPU where tasks of 320 are common, and
nothing where all ask for halves. The value of a size is the price at which the best
packing of all expected tasks breaks even: the dual of the cutting stock program
(Gilmore and Gomory, *A linear programming approach to the cutting-stock problem*,
Operations Research 9, 1961), found by generating patterns with a knapsack. The value of
a hole is the most valuable set of tasks that fits in it.
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
"""A filling that loses less than this share of a GPU counts as a filling that a good
packing would choose.
"""


@dataclass(frozen=True, kw_only=True)
class CapacityValue:
    """Tables over the free share of one GPU, from none (index 0) to a whole GPU (index
    `steps`).

    Attributes:
        steps: how many equal steps make a whole GPU.
        value: the tasks that still fit, in GPUs, 0 to 1.
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
        matching GPU would be.
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
    table: CapacityValue, free_milli: Sequence[int], share_milli: int
) -> list[int]:
    """The positions of the GPUs of one host that hold the share, the best to cut it
    from first.

    Least value is lost on the first; among equals least is left over, so that whole
    GPUs stay whole.
    """

    def cost(position: int) -> tuple[float, int, int]:
        free = free_milli[position]
        return round(table.value_lost(free, share_milli), 6), free, position

    return sorted(
        (i for i, free in enumerate(free_milli) if free >= share_milli), key=cost
    )


def unit_prices(sizes: Mapping[int, float], capacity: int) -> dict[int, float]:
    """The dual price of each size in the cutting stock program: no pattern that fits
    `capacity` is worth more than 1.

    Args:
        sizes: how many are wanted of each size, 0 < size < capacity.
        capacity: the size of one bin.

    The revised simplex method with one row for each size; a column enters while the
    knapsack at the present prices has a pattern worth more than 1.
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
    price: list[float] = []
    for _ in range(20 * len(order) + 50):
        price = [sum(row[j] for row in inverse) for j in rows]
        pattern, value = _knapsack(order, price, capacity)
        if value <= 1 + TOLERANCE:
            break
        column = [sum(row[j] * n for j, n in pattern.items()) for row in inverse]
        _pivot(inverse, amount, column)
    return {size: max(0.0, own) for size, own in zip(order, price, strict=True)}


def _steady_prices(sizes: Mapping[int, float], capacity: int) -> dict[int, float]:
    """The mean of the prices for the mix and for two slightly tilted mixes.

    Where partners balance (as many of 650 as of 320), the program has many solutions
    that share the value of a GPU among them quite differently, and one task more of
    either kind turns it over. The mean is a stable one of them.
    """
    mean = dict.fromkeys(sizes, 0.0)
    for tilt in (-TILT, 0.0, TILT):
        tilted = {
            size: count * (1 + tilt * (2 * size / capacity - 1))
            for size, count in sizes.items()
        }
        for size, price in unit_prices(tilted, capacity).items():
            mean[size] += price / 3
    return mean


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
    """The most valuable pattern that fits, as count by row, and its value."""
    best = [0.0] * (capacity + 1)
    last_row = [-1] * (capacity + 1)
    for row, size in enumerate(order):
        gain = price[row]
        if gain <= TOLERANCE:
            continue
        for level in range(size, capacity + 1):
            if best[level - size] + gain > best[level] + TOLERANCE:
                best[level] = best[level - size] + gain
                last_row[level] = row

    pattern: dict[int, int] = {}
    level = capacity
    while level > 0 and last_row[level] >= 0:
        row = last_row[level]
        pattern[row] = pattern.get(row, 0) + 1
        level -= order[row]
    return pattern, best[capacity]


def _taken(share_milli: int, steps: int) -> int:
    """How many steps a share takes, rounded up."""
    return -(-share_milli * steps // WHOLE)


def _wanted(mix: DemandMix) -> dict[int, float]:
    """How many are asked of each share below a whole GPU, the most wanted sizes
    only.
    """
    counts: dict[int, float] = {}
    for demand, count in mix.items():
        share = demand.share_milli
        if 0 < share < WHOLE:
            counts[share] = counts.get(share, 0) + count * demand.gpus
    priced = sorted(counts, key=lambda size: (-size * counts[size], size))[:MAX_SIZES]
    return {size: counts[size] for size in priced}


def _values(price: Mapping[int, float], steps: int) -> list[float]:
    """The knapsack's value for every capacity up to a whole GPU, which is always worth
    1.
    """
    value = [0.0] * (steps + 1)
    for size, gain in sorted(price.items()):
        for level in range(size, steps + 1):
            value[level] = max(value[level], value[level - size] + gain)
    value[steps] = 1.0
    return [min(1.0, best) for best in accumulate(value, max)]


def _needs(
    mix: DemandMix, value: Sequence[float], steps: int
) -> tuple[list[float], list[float]]:
    """CPU and memory expected to be used on a GPU of each level, if it is filled
    without loss.
    """
    tasks = _tasks(mix, steps)
    least_value = {task.size: _least_value(value, task.size) for task in tasks}
    cpu = [0.0] * len(value)
    memory = [0.0] * len(value)
    for level in range(1, len(value)):
        if value[level] <= TOLERANCE:
            continue
        lossless = [
            task
            for task in tasks
            if task.size <= level
            and _lost(value, level, task.size) <= least_value[task.size] + FREE_OF_LOSS
        ]
        total = sum(task.count for task in lossless)
        if not total:
            cpu[level] = cpu[level - 1]
            memory[level] = memory[level - 1]
            continue
        by_cpu = [task.count * (task.cpu + cpu[level - task.size]) for task in lossless]
        by_memory = [
            task.count * (task.memory + memory[level - task.size]) for task in lossless
        ]
        cpu[level] = sum(by_cpu) / total
        memory[level] = sum(by_memory) / total
    return cpu, memory


@dataclass(frozen=True)
class _Tasks:
    """The tasks of one size.

    Attributes:
        size: in steps.
        count: how many GPUs or shares of it are asked for.
        cpu, memory: the mean of what they ask for beside each.
    """

    size: int
    count: float
    cpu: float
    memory: float


def _tasks(mix: DemandMix, steps: int) -> list[_Tasks]:
    """The tasks of a mix by size, ascending."""
    sums: dict[int, list[float]] = {}
    for demand, count in mix.items():
        if demand.gpus:
            entry = sums.setdefault(_taken(demand.share_milli, steps), [0.0, 0.0, 0.0])
            entry[0] += count * demand.gpus
            entry[1] += count * demand.cpu_milli
            entry[2] += count * demand.memory_mib
    return [
        _Tasks(size, count, cpu / count, memory / count)
        for size, (count, cpu, memory) in sorted(sums.items())
    ]


def _least_value(value: Sequence[float], size: int) -> float:
    """What a size is worth: the least that it takes from any level."""
    return min(_lost(value, level, size) for level in range(size, len(value)))


def _lost(value: Sequence[float], level: int, size: int) -> float:
    return value[level] - value[level - size]
