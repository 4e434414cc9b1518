"""Slots: how many demands for several GPUs each node could still hold, and which kinds
of demand compete for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .cluster_state import ClusterState, Floats, Integers, Mask
from .demand import Demand, DemandMix

SURE = 2
"""Slots are priced for so many standard deviations more than is expected: of a rare
kind, chance may bring several.
"""

Kind = tuple[int, bytes]
"""How many GPUs a demand needs, and which empty nodes could hold it."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A kind of demand that few nodes can hold.

    Attributes:
        demand: the most that one of them asks for.
        weight: how often it is asked for, or a kind that is harder still to place.
        price: GPUs lost with a slot for it.
    """

    demand: Demand
    weight: float
    price: float = 0.0


@dataclass(kw_only=True)
class _Demands:
    """The demands of one kind.

    Attributes:
        hosts: the empty nodes that could hold them.
        largest: the most that one of them asks for.
        count: how many there are.
    """

    hosts: Mask
    largest: Demand
    count: float = 0.0


def hard_to_place(mix: DemandMix, cluster: ClusterState) -> list[Slot]:
    """The kinds of demands for several GPUs, distinguished by how many GPUs and which
    empty nodes they need.
    """
    kinds: dict[Kind, _Demands] = {}
    for demand, count in mix.items():
        hosts = cluster.could_hold(demand)
        if demand.gpus < 2 or not hosts.any():
            continue
        key = (demand.gpus, hosts.tobytes())
        kind = kinds.setdefault(key, _Demands(hosts=hosts, largest=demand))
        kind.largest = _larger(kind.largest, demand)
        kind.count += count
    return [
        Slot(demand=kind.largest, weight=_weight(key, kinds))
        for key, kind in kinds.items()
    ]


def _weight(key: Kind, kinds: dict[Kind, _Demands]) -> float:
    """How often a kind, or a kind that is harder still to place, is asked for."""
    return sum(
        other.count
        for other_key, other in kinds.items()
        if _is_harder(other_key, key, kinds)
    )


def _is_harder(key: Kind, than: Kind, kinds: dict[Kind, _Demands]) -> bool:
    """Whether what can hold the one kind can hold the other, and as many GPUs are
    meant.
    """
    if key[0] != than[0]:
        return False
    return not bool((kinds[key].hosts & ~kinds[than].hosts).any())


def _larger(first: Demand, second: Demand) -> Demand:
    """A demand that fits only where both would, on nodes that could hold either."""
    return replace(
        first,
        cpu_milli=max(first.cpu_milli, second.cpu_milli),
        memory_mib=max(first.memory_mib, second.memory_mib),
        models=first.models & second.models or first.models or second.models,
    )


def count_on_nodes(
    cluster: ClusterState,
    nodes: Integers | slice,
    cpu: Floats,
    memory: Floats,
    whole: Integers,
    demand: Demand,
) -> Floats:
    """How many demands of that kind each node could still hold.

    Args:
        nodes: positions of the nodes.
        cpu, memory, whole: what is left on each of them, and how many GPUs are entirely
            free.
    """
    count: Floats = whole / demand.gpus
    if demand.cpu_milli:
        np.minimum(count, cpu / demand.cpu_milli, out=count)
    if demand.memory_mib:
        np.minimum(count, memory / demand.memory_mib, out=count)
    np.floor(count, out=count)
    if demand.models:
        return count * cluster.of_models(demand.models)[nodes]
    return count


def count_on_node(cpu: float, memory: float, whole: int, demand: Demand) -> int:
    """`count_on_nodes` for a single node of a model that will do."""
    by_cpu = cpu / demand.cpu_milli if demand.cpu_milli else whole
    by_memory = memory / demand.memory_mib if demand.memory_mib else whole
    return int(min(whole / demand.gpus, by_cpu, by_memory))


def at_most(expected: float) -> float:
    """How many may well come where that many are expected: arrivals by chance vary by
    the root of their number.
    """
    return expected + SURE * math.sqrt(expected)


def pressure(demand: float, supply: float) -> float:
    """How much of the supply is expected to be asked for, at most all of it."""
    if supply:
        return min(1.0, demand / supply)
    return 1.0
