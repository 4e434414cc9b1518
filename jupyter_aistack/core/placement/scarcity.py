"""The scarcity policy: take what is least likely to be missed.

Every demand goes to the node, and the GPU on it, where the sum of four prices is least.
All are in GPUs, and all follow from the mix of demands known so far, never from what is
to come:

1. *Value of the hole*: how much more a GPU is devalued than by a perfectly matching
   task (see `capacity_value`), and a little for what is left over, so that GPUs already cut are
   used up first.
2. *Balance*: GPUs without CPU or memory beside them are stranded. The risk of a node is
   the value of its free GPUs times a steep power of (what those GPUs are expected to
   need) / (what the node has left), for CPU and for memory.
3. *Capacity for the big*: a demand for several GPUs finds only so many slots. A slot costs
   what may well be asked of it (the expectation and twice its spread) over what there
   is, to a power: nothing while slots abound, and dear when they run out. Of a rare
   kind the spread is most, so that the few nodes that could hold it are spared from the
   start.
4. *Models*: the same for the GPUs of the models that some demands insist on.

Prices 3 and 4 are the bid prices of revenue management, recomputed from the remaining
capacity and the expected remaining demand as the cluster fills (Talluri and van Ryzin,
*An analysis of bid-price controls*, Management Science 44, 1998; Jasin and Kumar, *A
re-solving heuristic with bounded revenue loss*, Mathematics of Operations Research 37,
2012).
A demand that fits somewhere is always placed: prices choose where, never whether.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .capacity_value import capacity_value
from .cluster_state import ClusterState, Floats, Integers
from .demand import WHOLE, Demand, DemandMix, PlacementTarget
from .slots import Slot, at_most, count_on_node, count_on_nodes, hard_to_place, pressure

Number = TypeVar("Number", float, Floats)

LEFT_OVER = 0.03
"""Price of a whole GPU left over, in GPUs."""
BALANCE = 0.003
"""Risk of a node whose free CPU and memory are exactly what its free GPUs are expected
to need, for each GPU.
"""
SPARE_CPU_MILLI = 100.0
SPARE_MEMORY_MIB = 400.0
"""Added to what is left on a node, so that an exhausted node has a large and not an
infinite risk.
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
"""Prices are recomputed when this share of the cluster has been granted or released."""
HISTORY = 8000
"""How many arrivals a history weighs as much as, at most: what really comes overrules a
history that does not match it.
"""
FIRST_LESSON = 32
NEXT_LESSON = 1.5
"""The tables are recomputed after that many arrivals, and whenever that many times
more demands are known.
"""


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What a demand would take from each candidate node.

    Attributes:
        gpus: positions of the GPUs, a row for each node; None when the first whole GPUs
            will do.
        loss: price of the hole.
        value, cpu, memory: how much the free GPUs' value and their needs shrink.
        whole: how many entirely free GPUs are cut.
    """

    gpus: Integers | None
    loss: Floats | float
    value: Floats | float
    cpu: Floats | float
    memory: Floats | float
    whole: Integers | int


class Scarcity:
    """The policy on one cluster.

    Args:
        cluster: the nodes; the policy follows every change of it.
        history: demands known beforehand, as the mix to expect.
    """

    def __init__(self, cluster: ClusterState, history: Iterable[Demand] = ()) -> None:
        self._cluster = cluster
        self._mix = DemandMix(history, at_most=HISTORY)
        self._capacity = sum(node.gpus for node in cluster.nodes)
        models = sorted({node.model for node in cluster.nodes})
        self._models = models
        self._model_of = np.array(
            [models.index(node.model) for node in cluster.nodes], dtype=np.int64
        )
        self._learn()
        self._lesson = max(FIRST_LESSON, NEXT_LESSON * self._mix.total)
        cluster.watchers.append(self._changed)

    def arrived(self, demand: Demand) -> None:
        """Count an arrival into the mix, and learn from it when enough is new."""
        self._mix.add(demand)
        if self._mix.total >= self._lesson:
            self._lesson = NEXT_LESSON * self._mix.total
            self._learn()
        elif abs(self._free() - self._priced_at) >= REPRICE * self._capacity:
            self._reprice()

    def choose(self, demand: Demand) -> PlacementTarget | None:
        """The target of least price, or None when no node holds the demand."""
        candidates = np.flatnonzero(self._cluster.fitting(demand))
        if not len(candidates):
            return None
        cut = self._cut(demand, candidates)
        best = int(np.argmin(self._price(demand, candidates, cut)))
        node = int(candidates[best])
        if cut.gpus is not None:
            chosen = sorted(int(gpu) for gpu in cut.gpus[best])
        elif demand.gpus:
            whole = np.flatnonzero(self._cluster.shares[node] == WHOLE)
            chosen = [int(gpu) for gpu in whole[: demand.gpus]]
        else:
            chosen = []
        return PlacementTarget(node=node, gpus=tuple(chosen))

    def _price(self, demand: Demand, nodes: Integers, cut: _Cut) -> Floats:
        """The sum of the four prices on each candidate node."""
        cluster = self._cluster
        cpu = cluster.cpu[nodes] - demand.cpu_milli
        memory = cluster.memory[nodes] - demand.memory_mib
        risk: Floats = _risk(
            self._value[nodes] - cut.value,
            self._needs_cpu[nodes] - cut.cpu,
            self._needs_memory[nodes] - cut.memory,
            cpu,
            memory,
        )
        price: Floats = risk - self._risk[nodes]
        price += cut.loss
        if self._slots:
            whole = cluster.whole[nodes] - cut.whole
            price += self._slot_value[nodes]
            price -= self._value_of_slots(nodes, cpu, memory, whole)
        if self._model_price is not None and demand.gpus:
            price += cut.value * self._model_price[nodes]
        return price

    def _cut(self, demand: Demand, nodes: Integers) -> _Cut:
        """The cheapest GPUs for the demand on each candidate node."""
        if not demand.gpus:
            return _Cut(gpus=None, loss=0.0, value=0.0, cpu=0.0, memory=0.0, whole=0)
        if demand.share_milli == WHOLE:
            return self._cut_whole(demand.gpus, nodes)

        loss, value, cpu, memory = self._tables(demand.share_milli)
        levels = self._levels[nodes]
        is_able = self._cluster.shares[nodes] >= demand.share_milli
        losses = np.where(is_able, loss[levels], np.inf)
        gpus = _cheapest(losses, demand.gpus)
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

    def _cut_whole(self, count: int, nodes: Integers) -> _Cut:
        """Entirely free GPUs: which of them makes no difference."""
        return _Cut(
            gpus=None,
            loss=LEFT_OVER * (self._cluster.whole[nodes] - count),
            value=float(count),
            cpu=count * self._cpu[-1],
            memory=count * self._memory[-1],
            whole=count,
        )

    def _tables(self, share_milli: int) -> tuple[Floats, Floats, Floats, Floats]:
        """By level of a GPU: the price of cutting the share from it, and by how much
        its value and needs shrink.
        """
        tables = self._by_share.get(share_milli)
        if tables is None:
            steps = self._table.steps
            after = np.arange(steps + 1) - self._table.taken(share_milli)
            after = np.maximum(after, 0)
            value = self._level_value - self._level_value[after]
            cpu = self._cpu - self._cpu[after]
            memory = self._memory - self._memory[after]
            loss = value + LEFT_OVER * after / steps
            tables = (loss, value, cpu, memory)
            self._by_share[share_milli] = tables
        return tables

    def _learn(self) -> None:
        """Set the tables from the mix, and everything that follows from them."""
        cluster = self._cluster
        table = capacity_value(self._mix)
        self._table = table
        self._level_value = np.array(table.value)
        self._cpu = np.array(table.cpu_milli)
        self._memory = np.array(table.memory_mib)
        self._by_share: dict[int, tuple[Floats, Floats, Floats, Floats]] = {}
        self._levels = cluster.shares.clip(0) * table.steps // WHOLE
        self._value = self._level_value[self._levels].sum(axis=1)
        self._needs_cpu = self._cpu[self._levels].sum(axis=1)
        self._needs_memory = self._memory[self._levels].sum(axis=1)
        self._risk = _risk(
            self._value,
            self._needs_cpu,
            self._needs_memory,
            cluster.cpu,
            cluster.memory,
        )
        self._kinds = hard_to_place(self._mix, cluster)
        self._reprice()

    def _changed(self, node: int) -> None:
        """Follow a change of a node; plain numbers are faster than arrays of one
        element.
        """
        cluster = self._cluster
        table = self._table
        shares = cluster.shares[node].tolist()
        levels = [table.level(max(0, share)) for share in shares]
        value = sum(table.value[level] for level in levels)
        needs_cpu = sum(table.cpu_milli[level] for level in levels)
        needs_memory = sum(table.memory_mib[level] for level in levels)
        cpu = float(cluster.cpu[node])
        memory = float(cluster.memory[node])
        self._levels[node] = levels
        self._value[node] = value
        self._needs_cpu[node] = needs_cpu
        self._needs_memory[node] = needs_memory
        self._risk[node] = _risk(value, needs_cpu, needs_memory, cpu, memory)
        if self._slots:
            whole = int(cluster.whole[node])
            model = cluster.nodes[node].model
            self._slot_value[node] = sum(
                slot.price * count_on_node(cpu, memory, whole, slot.demand)
                for slot in self._slots
                if not slot.demand.models or model in slot.demand.models
            )

    def _free(self) -> float:
        """GPUs still free, parts of GPUs included."""
        return self._cluster.free_milli / WHOLE

    def _reprice(self) -> None:
        """Set the prices of slots and models from what is free and what is expected to
        be asked of it.

        The expectation is that demands of the known mix come until the free GPUs are
        used up.
        """
        cluster = self._cluster
        every = slice(None)
        self._priced_at = self._free()
        self._slots: list[Slot] = []
        self._model_price: Floats | None = None
        if not self._mix.gpu_total:
            return
        rounds = self._priced_at / self._mix.gpu_total
        for kind in self._kinds:
            supply = float(
                count_on_nodes(
                    cluster,
                    every,
                    cluster.cpu,
                    cluster.memory,
                    cluster.whole,
                    kind.demand,
                ).sum()
            )
            wanted = pressure(at_most(rounds * kind.weight), supply)
            price = SLOT * kind.demand.gpus * wanted**SLOT_POWER
            if supply and price >= NEGLIGIBLE:
                self._slots.append(replace(kind, price=price))
        self._slot_value = self._value_of_slots(
            every, cluster.cpu, cluster.memory, cluster.whole
        )
        self._model_price = self._price_models(rounds)

    def _price_models(self, rounds: float) -> Floats | None:
        """The price of a GPU on each node, by the sets of models that demands insist
        on; None when none do.
        """
        wanted: dict[frozenset[str], float] = {}
        for demand, count in self._mix.items():
            if demand.models and demand.gpus:
                amount = count * demand.gpu_amount
                wanted[demand.models] = wanted.get(demand.models, 0.0) + amount
        if not wanted:
            return None
        prices = np.zeros(len(self._models))
        for models in wanted:
            inside = [amount for subset, amount in wanted.items() if subset <= models]
            supply = float(self._value[self._cluster.of_models(models)].sum())
            price = MODEL * pressure(rounds * sum(inside), supply) ** MODEL_POWER
            of_set = [model in models for model in self._models]
            prices[of_set] = np.maximum(prices[of_set], price)
        by_node: Floats = prices[self._model_of]
        return by_node

    def _value_of_slots(
        self, nodes: Integers | slice, cpu: Floats, memory: Floats, whole: Integers
    ) -> Floats:
        total = np.zeros(len(cpu))
        for slot in self._slots:
            count = count_on_nodes(
                self._cluster, nodes, cpu, memory, whole, slot.demand
            )
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


def _cheapest(losses: Floats, count: int) -> Integers:
    """The positions of the `count` least losses of each row."""
    if count == 1:
        least: Integers = losses.argmin(axis=1)[:, None]
        return least
    ordered: Integers = losses.argsort(axis=1)[:, :count]
    return ordered
