"""The scarcity policy: take what is least likely to be missed.

Every demand goes to the node, and the GPU on it, where the sum of four prices is least.
All are in GPUs, and all follow from the mix of demands known so far, never from what is
to come:

1. *Worth of the hole*: how much more a GPU is devalued than by a perfectly matching
   task (see `worth`), and a little for the room left over, so that GPUs already cut are
   used up first.
2. *Balance*: GPUs without CPU or memory beside them are stranded. The risk of a node is
   the worth of its free GPUs times a steep power of (what those GPUs are expected to
   need) / (what the node has left), for CPU and for memory.
3. *Room for the big*: a demand for several GPUs finds only so many slots. A slot costs
   what may well be asked of it (the expectation and twice its spread) over what there
   is, to a power: nothing while slots abound, and dear when they run out. Of a rare
   kind the spread is most, so that the few nodes that could hold it are spared from the
   start.
4. *Models*: the same for the GPUs of the models that some demands insist on.

Prices 3 and 4 are the bid prices of revenue management, set anew from the remaining
capacity and the expected remaining demand as the cluster fills (Talluri and van Ryzin,
*An analysis of bid-price controls*, Management Science 44, 1998; Jasin and Kumar, *A
re-solving heuristic with bounded revenue loss*, Mathematics of Operations Research 37,
2012).
A demand that fits somewhere is always placed: prices choose where, never whether.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .capacity_value import capacity_value
from .cluster_state import ClusterState, Floats, Integers, Mask
from .demand import WHOLE, Demand, DemandMix, PlacementTarget

Number = TypeVar("Number", float, Floats)

LEFT_OVER = 0.03
"""Price of a whole GPU's room left over, in GPUs."""
BALANCE = 0.003
"""Risk of a node whose free CPU and memory are exactly what its free GPUs are expected
to need, for each GPU.
"""
SPARE_CPU_MILLI = 100.0
SPARE_MEMORY_MIB = 400.0
"""Added to what is left on a node, so that an exhausted node has a large risk and not
an infinite one.
"""
SLOT = 0.3
SLOT_POWER = 4
"""Price of a slot that is sure to be needed, for each of its GPUs, and how steeply it
falls while slots abound.
"""
MODEL = 1.0
MODEL_POWER = 2
"""The same for a GPU of a model that is insisted on."""
NEGLIGIBLE = 1e-4
"""Slot prices below this are left out, to save time."""
REPRICE = 0.01
"""Prices are set anew when this share of the cluster has been granted or given back."""
SURE = 2
"""Slots are priced for so many standard deviations more than is expected: of a rare
kind, chance may bring several.
"""
HISTORY = 8000
"""How many arrivals a history weighs as much as, at most: what really comes overrules
one that does not match it.
"""
FIRST_LESSON = 32
NEXT_LESSON = 1.5
"""The tables are learnt anew after that many arrivals, and whenever that many times
more demands are known.
"""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A kind of demand that few nodes can hold.

    Attributes:
        demand: the most that one of them asks for.
        weight: how often it is asked for, or one that is harder still to place.
        price: GPUs lost with a slot for it.
    """

    demand: Demand
    weight: float
    price: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What a demand would take from each candidate node.

    Attributes:
        gpus: positions of the GPUs, a row for each node; None when the first whole ones
            will do.
        loss: price of the hole.
        value, cpu, memory: how much the free GPUs' worth and their needs shrink.
        whole: how many entirely free GPUs are cut.
    """

    gpus: Integers | None
    loss: Floats | float
    value: Floats | float
    cpu: Floats | float
    memory: Floats | float
    whole: Integers | int


class Scarcity:
    """The policy on one fleet.

    Args:
        fleet: the nodes; the policy follows every change of it.
        history: demands known beforehand, as the mix to expect.
    """

    def __init__(self, fleet: ClusterState, history: Iterable[Demand] = ()) -> None:
        self._fleet = fleet
        self._mix = DemandMix(history, at_most=HISTORY)
        self._capacity = sum(node.gpus for node in fleet.nodes)
        models = sorted({node.model for node in fleet.nodes})
        self._models = models
        self._model_of = np.array(
            [models.index(node.model) for node in fleet.nodes], dtype=np.int64
        )
        self._learn()
        self._lesson = max(FIRST_LESSON, NEXT_LESSON * self._mix.total)
        fleet.watchers.append(self._changed)

    def arrived(self, demand: Demand) -> None:
        """Count an arrival into the mix, and learn from it when enough is new."""
        self._mix.add(demand)
        if self._mix.total >= self._lesson:
            self._lesson = NEXT_LESSON * self._mix.total
            self._learn()
        elif abs(self._free() - self._priced_at) >= REPRICE * self._capacity:
            self._reprice()

    def choose(self, demand: Demand) -> PlacementTarget | None:
        """The spot of least price, or None when no node holds the demand."""
        candidates = np.flatnonzero(self._fleet.fitting(demand))
        if not len(candidates):
            return None
        cut = self._cut(demand, candidates)
        best = int(np.argmin(self._price(demand, candidates, cut)))
        node = int(candidates[best])
        if cut.gpus is None:
            able = (
                np.flatnonzero(self._fleet.shares[node] == WHOLE) if demand.gpus else ()
            )
            return PlacementTarget(
                node=node, gpus=tuple(int(gpu) for gpu in able[: demand.gpus])
            )
        return PlacementTarget(
            node=node, gpus=tuple(sorted(int(gpu) for gpu in cut.gpus[best]))
        )

    def _price(self, demand: Demand, nodes: Integers, cut: _Cut) -> Floats:
        fleet = self._fleet
        cpu = fleet.cpu[nodes] - demand.cpu_milli
        memory = fleet.memory[nodes] - demand.memory_mib
        needs = self._needs_cpu[nodes] - cut.cpu, self._needs_memory[nodes] - cut.memory
        price: Floats = (
            _risk(self._value[nodes] - cut.value, *needs, cpu, memory)
            - self._risk[nodes]
        )
        price += cut.loss
        if self._slots:
            price += self._slots_worth[nodes]
            price -= self._worth_of_slots(
                nodes, cpu, memory, fleet.whole[nodes] - cut.whole
            )
        if self._model_price is not None and demand.gpus:
            price += cut.value * self._model_price[nodes]
        return price

    def _cut(self, demand: Demand, nodes: Integers) -> _Cut:
        """The cheapest GPUs for the demand on each candidate node."""
        if not demand.gpus:
            return _Cut(gpus=None, loss=0.0, value=0.0, cpu=0.0, memory=0.0, whole=0)
        if demand.share_milli == WHOLE:
            n = demand.gpus
            cpu = self._cpu[-1]
            memory = self._memory[-1]
            left = LEFT_OVER * (self._fleet.whole[nodes] - n)
            return _Cut(
                gpus=None,
                loss=left,
                value=float(n),
                cpu=n * cpu,
                memory=n * memory,
                whole=n,
            )
        loss, value, cpu, memory = self._tables(demand.share_milli)
        levels = self._levels[nodes]
        losses = np.where(
            self._fleet.shares[nodes] >= demand.share_milli, loss[levels], np.inf
        )
        gpus = (
            losses.argmin(axis=1)[:, None]
            if demand.gpus == 1
            else losses.argsort(axis=1)[:, : demand.gpus]
        )
        rows = np.arange(len(nodes))[:, None]
        at = levels[rows, gpus]
        return _Cut(
            gpus=gpus,
            loss=losses[rows, gpus].sum(axis=1),
            value=value[at].sum(axis=1),
            cpu=cpu[at].sum(axis=1),
            memory=memory[at].sum(axis=1),
            whole=(at == len(value) - 1).sum(axis=1),
        )

    def _tables(self, share_milli: int) -> tuple[Floats, Floats, Floats, Floats]:
        """By level of a GPU: the price of cutting the share from it, and by how much
        its worth and needs shrink.
        """
        if share_milli not in self._by_share:
            after = np.maximum(
                np.arange(self._worth.steps + 1) - self._worth.taken(share_milli), 0
            )
            drops = [
                table - table[after]
                for table in (self._of_level, self._cpu, self._memory)
            ]
            loss = drops[0] + LEFT_OVER * after / self._worth.steps
            self._by_share[share_milli] = (loss, drops[0], drops[1], drops[2])
        return self._by_share[share_milli]

    def _learn(self) -> None:
        """Set the tables from the mix, and everything that follows from them."""
        fleet = self._fleet
        worth = capacity_value(self._mix)
        self._worth = worth
        self._of_level, self._cpu, self._memory = map(
            np.array, (worth.value, worth.cpu_milli, worth.memory_mib)
        )
        self._by_share: dict[int, tuple[Floats, Floats, Floats, Floats]] = {}
        self._levels = fleet.shares.clip(0) * worth.steps // WHOLE
        self._value = self._of_level[self._levels].sum(axis=1)
        self._needs_cpu = self._cpu[self._levels].sum(axis=1)
        self._needs_memory = self._memory[self._levels].sum(axis=1)
        self._risk = _risk(
            self._value, self._needs_cpu, self._needs_memory, fleet.cpu, fleet.memory
        )
        self._kinds = self._hard_to_place()
        self._reprice()

    def _changed(self, node: int) -> None:
        """Follow a change of one node; plain numbers are faster than arrays of one."""
        fleet = self._fleet
        worth = self._worth
        levels = [worth.level(max(0, share)) for share in fleet.shares[node].tolist()]
        value = sum(worth.value[level] for level in levels)
        cpu = sum(worth.cpu_milli[level] for level in levels)
        memory = sum(worth.memory_mib[level] for level in levels)
        self._levels[node] = levels
        self._value[node] = value
        self._needs_cpu[node] = cpu
        self._needs_memory[node] = memory
        left = float(fleet.cpu[node]), float(fleet.memory[node]), int(fleet.whole[node])
        self._risk[node] = _risk(value, cpu, memory, left[0], left[1])
        if self._slots:
            self._slots_worth[node] = sum(
                slot.price * _count_one(*left, slot.demand)
                for slot in self._slots
                if not slot.demand.models
                or fleet.nodes[node].model in slot.demand.models
            )

    def _free(self) -> float:
        """GPUs still free, parts of GPUs included."""
        return self._fleet.free_milli / WHOLE

    def _reprice(self) -> None:
        """Set the prices of slots and models from what is free and what is expected to
        be asked of it.

        The expectation is that demands of the known mix come until the free GPUs are
        used up.
        """
        fleet = self._fleet
        every = slice(None)
        self._priced_at = self._free()
        self._slots: list[_Slot] = []
        self._model_price: Floats | None = None
        if not self._mix.gpu_total:
            return
        rounds = self._priced_at / self._mix.gpu_total
        for kind in self._kinds:
            supply = float(
                _count(
                    fleet, every, fleet.cpu, fleet.memory, fleet.whole, kind.demand
                ).sum()
            )
            price = (
                SLOT
                * kind.demand.gpus
                * _pressure(_at_most(rounds * kind.weight), supply) ** SLOT_POWER
            )
            if supply and price >= NEGLIGIBLE:
                self._slots.append(replace(kind, price=price))
        self._slots_worth = self._worth_of_slots(
            every, fleet.cpu, fleet.memory, fleet.whole
        )
        self._model_price = self._price_models(rounds)

    def _price_models(self, rounds: float) -> Floats | None:
        """The price of a GPU on each node, by the sets of models that demands insist
        on; None when none do.
        """
        wanted: dict[frozenset[str], float] = {}
        for demand, count in self._mix.items():
            if demand.models and demand.gpus:
                wanted[demand.models] = (
                    wanted.get(demand.models, 0.0) + count * demand.gpu_amount
                )
        if not wanted:
            return None
        prices = np.zeros(len(self._models))
        for models in wanted:
            inside = sum(
                amount for others, amount in wanted.items() if others <= models
            )
            supply = float(self._value[self._fleet.of_models(models)].sum())
            price = MODEL * _pressure(rounds * inside, supply) ** MODEL_POWER
            of_set = [model in models for model in self._models]
            prices[of_set] = np.maximum(prices[of_set], price)
        found: Floats = prices[self._model_of]
        return found

    def _hard_to_place(self) -> list[_Slot]:
        """The kinds of demands for several GPUs, told apart by how many GPUs and which
        empty nodes they need.
        """
        hosts: dict[tuple[int, bytes], Mask] = {}
        largest: dict[tuple[int, bytes], Demand] = {}
        counts: dict[tuple[int, bytes], float] = {}
        for demand, count in self._mix.items():
            mask = self._fleet.could_hold(demand)
            if demand.gpus > 1 and mask.any():
                key = demand.gpus, mask.tobytes()
                hosts[key] = mask
                largest[key] = _larger(largest.get(key, demand), demand)
                counts[key] = counts.get(key, 0.0) + count
        return [
            _Slot(
                demand=largest[key],
                weight=sum(n for k, n in counts.items() if _is_harder(k, key, hosts)),
            )
            for key in hosts
        ]

    def _worth_of_slots(
        self, nodes: Integers | slice, cpu: Floats, memory: Floats, whole: Integers
    ) -> Floats:
        total = np.zeros(len(cpu))
        for slot in self._slots:
            count = _count(self._fleet, nodes, cpu, memory, whole, slot.demand)
            count *= slot.price
            total += count
        return total


def _risk(
    value: Number, needs_cpu: Number, needs_memory: Number, cpu: Number, memory: Number
) -> Number:
    """GPUs of a node, or of each, at risk of being stranded for want of CPU or
    memory.
    """
    by_cpu = needs_cpu / (cpu + SPARE_CPU_MILLI)
    by_memory = needs_memory / (memory + SPARE_MEMORY_MIB)
    # Squaring twice is ten times as fast as the fourth power.
    by_cpu = by_cpu * by_cpu
    by_memory = by_memory * by_memory
    return BALANCE * value * (by_cpu * by_cpu + by_memory * by_memory)


def _count_one(cpu: float, memory: float, whole: int, demand: Demand) -> int:
    """`_count` for a single node of a model that will do."""
    by_cpu = cpu / demand.cpu_milli if demand.cpu_milli else whole
    by_memory = memory / demand.memory_mib if demand.memory_mib else whole
    return int(min(whole / demand.gpus, by_cpu, by_memory))


def _count(
    fleet: ClusterState,
    nodes: Integers | slice,
    cpu: Floats,
    memory: Floats,
    whole: Integers,
    demand: Demand,
) -> Floats:
    """How many demands of that kind each node could still hold, with so much left on
    it.
    """
    count: Floats = whole / demand.gpus
    if demand.cpu_milli:
        np.minimum(count, cpu / demand.cpu_milli, out=count)
    if demand.memory_mib:
        np.minimum(count, memory / demand.memory_mib, out=count)
    np.floor(count, out=count)
    return count * fleet.of_models(demand.models)[nodes] if demand.models else count


def _at_most(expected: float) -> float:
    """How many may well come where that many are expected: arrivals by chance vary by
    the root of their number.
    """
    return expected + SURE * math.sqrt(expected)


def _pressure(demand: float, supply: float) -> float:
    """How much of the supply is expected to be asked for, at most all of it."""
    return min(1.0, demand / supply) if supply else 1.0


def _larger(one: Demand, other: Demand) -> Demand:
    """A demand that fits only where both would, on nodes that could hold either."""
    cpu = max(one.cpu_milli, other.cpu_milli)
    memory = max(one.memory_mib, other.memory_mib)
    models = one.models & other.models or one.models or other.models
    return replace(one, cpu_milli=cpu, memory_mib=memory, models=models)


def _is_harder(
    key: tuple[int, bytes],
    than: tuple[int, bytes],
    hosts: dict[tuple[int, bytes], Mask],
) -> bool:
    """Whether what can hold the one kind can hold the other, and as many GPUs are
    meant.
    """
    return key[0] == than[0] and not bool((hosts[key] & ~hosts[than]).any())
