"""What is asked of a cluster and what its nodes offer: the values that placement
policies work on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WHOLE = 1000
"""Thousandths of a GPU that make a whole GPU."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one task asks for, all of it on one node.

    Attributes:
        cpu_milli: thousandths of a CPU core.
        memory_mib: host memory.
        gpus: number of GPUs; 0 for a task that needs none.
        share_milli: thousandths of each of them, 1 to 1000 (whole GPUs); 0 when `gpus`
            is 0.
        models: GPU models it may run on; empty for any.
    """

    cpu_milli: int = 0
    memory_mib: int = 0
    gpus: int = 0
    share_milli: int = 0
    models: frozenset[str] = frozenset()

    @property
    def gpu_amount(self) -> float:
        """GPUs it takes, as a number of whole GPUs."""
        return self.gpus * self.share_milli / WHOLE


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine, empty.

    Attributes:
        name: unique within its cluster.
        cpu_milli: thousandths of a CPU core.
        memory_mib: host memory.
        gpus: number of GPUs.
        model: their model; empty when there are none.
    """

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class PlacementTarget:
    """Where a demand goes.

    Attributes:
        node: position of the node in its cluster.
        gpus: positions of the GPUs on that node, ascending.
    """

    node: int
    gpus: tuple[int, ...] = ()


class DemandMix:
    """How often each demand is asked for. It knows the past alone: what has been added
    to it.

    Args:
        demands: what is known to begin with.
        at_most: how many arrivals these may weigh as much as; None for as many as they
            are.
    """

    def __init__(
        self, demands: Iterable[Demand] = (), *, at_most: int | None = None
    ) -> None:
        counts = Counter(demands)
        known = counts.total()
        weight = at_most / known if at_most is not None and known > at_most else 1.0
        self._counts: dict[Demand, float] = {
            demand: weight * count for demand, count in counts.items()
        }
        self.total = weight * known
        self.gpu_total = sum(
            demand.gpu_amount * count for demand, count in self.items()
        )

    def add(self, demand: Demand) -> None:
        """Count one more arrival."""
        self._counts[demand] = self._counts.get(demand, 0.0) + 1
        self.total += 1
        self.gpu_total += demand.gpu_amount

    def items(self) -> Iterator[tuple[Demand, float]]:
        """Each demand with its count, in an order that does not depend on the order of
        arrival.
        """
        return iter(sorted(self._counts.items(), key=lambda item: _key(item[0])))


def _key(demand: Demand) -> tuple[int, int, int, int, tuple[str, ...]]:
    models = tuple(sorted(demand.models))
    return demand.gpus, demand.share_milli, demand.cpu_milli, demand.memory_mib, models
