"""The policies that ours is compared with: Fragmentation Gradient Descent, and best
fit.

Weng et al., *Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
Fragmentation Gradient Descent*, USENIX
ATC 2023. A GPU's free share is a fragment to a task that cannot use it; every task goes
where the fragments expected by the mix of tasks grow least. As in the authors'
simulator, the mix is the commonest tasks up to 95 % of all, a score is a whole number
of hundredths of a sigmoid, and the first of the best nodes is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .cluster_state import ClusterState, Floats, Integers, Mask
from .demand import WHOLE, Demand, DemandMix, PlacementTarget

POPULAR = 0.95
"""The share of all tasks that the typical tasks make up."""
FIRST_LESSON = 32
NEXT_LESSON = 1.5
"""The typical tasks are chosen again after that many arrivals, and whenever that many
times more tasks are known.
"""


@dataclass(frozen=True, kw_only=True)
class _Typical:
    """The typical tasks, in arrays of equal length.

    Attributes:
        weight: how likely each is the next to come; 1 in all.
        cpu, memory, gpus: what each asks for.
        sizes: the different shares asked for, ascending.
        size: the position of each task's share in `sizes`.
        hosts: which nodes have a model that it accepts, a row for each node.
    """

    weight: Floats
    cpu: Floats
    memory: Floats
    gpus: Integers
    sizes: Integers
    size: Integers
    hosts: Mask


@dataclass(kw_only=True)
class _Scores:
    """What is remembered of one demand: for each node its score and GPU, and the state
    of the node they belong to.
    """

    score: Integers
    gpu: Integers
    state: Integers


class FragmentationGradient:
    """FGD on one cluster.

    Args:
        cluster: the nodes.
        history: the tasks whose mix is expected; arrivals are added to it.
    """

    def __init__(self, cluster: ClusterState, history: Iterable[Demand] = ()) -> None:
        self._cluster = cluster
        self._mix = DemandMix(history)
        self._state = np.zeros(len(cluster.nodes), dtype=np.int64)
        self._learn()
        cluster.watchers.append(self._changed)

    def arrived(self, demand: Demand) -> None:
        """Count an arrival into the mix, and choose the typical tasks again when enough
        is new.
        """
        self._mix.add(demand)
        if self._mix.total >= self._lesson:
            self._learn()

    def choose(self, demand: Demand) -> PlacementTarget | None:
        """The target where fragments grow least, or None when no node holds the
        demand.
        """
        fitting = self._cluster.fitting(demand)
        if not fitting.any():
            return None
        known = self._known(demand)
        stale = np.flatnonzero(fitting & (known.state != self._state))
        if len(stale):
            known.score[stale], known.gpu[stale] = self._score(demand, stale)
            known.state[stale] = self._state[stale]
        node = int(np.where(fitting, known.score, -1).argmax())
        if demand.gpus == 1:
            return PlacementTarget(node=node, gpus=(int(known.gpu[node]),))
        shares = self._cluster.shares[node]
        able = np.flatnonzero((shares >= demand.share_milli) & (shares > 0))
        chosen = tuple(int(gpu) for gpu in able[: demand.gpus])
        return PlacementTarget(node=node, gpus=chosen)

    def _known(self, demand: Demand) -> _Scores:
        if demand not in self._scores:
            count = len(self._cluster.nodes)
            zeros = np.zeros(count, dtype=np.int64)
            self._scores[demand] = _Scores(
                score=zeros, gpu=zeros.copy(), state=np.full(count, -1)
            )
        return self._scores[demand]

    def _score(self, demand: Demand, nodes: Integers) -> tuple[Integers, Integers]:
        """The best score on each node, 0 to 100, and the GPU it is had on."""
        rows, gpus, shares = self._outcomes(demand, nodes)
        at = nodes[rows]
        cpu = self._cluster.cpu[at] - demand.cpu_milli
        memory = self._cluster.memory[at] - demand.memory_mib
        growth = self._fragments(at, cpu, memory, shares) - self._present[at]
        score = (100 / (1 + np.exp(growth / WHOLE))).astype(np.int64)
        # One number for both: the higher score wins, then the lower GPU.
        ranks = np.full(len(nodes), -1)
        width = self._cluster.shares.shape[1] + 1
        np.maximum.at(ranks, rows, score * width + (width - 1 - gpus))
        return ranks // width, width - 1 - ranks % width

    def _outcomes(
        self, demand: Demand, nodes: Integers
    ) -> tuple[Integers, Integers, Integers]:
        """Every way to place the demand: the position in `nodes`, the first GPU taken,
        and all shares afterwards.
        """
        shares = self._cluster.shares[nodes]
        able = (shares >= demand.share_milli) & (shares > 0)
        if demand.gpus == 1:
            rows, gpus = np.nonzero(able)
            after = shares[rows]
            after[np.arange(len(rows)), gpus] -= demand.share_milli
            return rows, gpus, after
        after = shares - demand.share_milli * (
            able & (able.cumsum(axis=1) <= demand.gpus)
        )
        return np.arange(len(nodes)), np.zeros(len(nodes), dtype=np.int64), after

    def _fragments(
        self, nodes: Integers, cpu: Floats, memory: Floats, shares: Integers
    ) -> Floats:
        """Thousandths of GPUs on each node that the next task is expected to find
        useless.
        """
        typical = self._typical
        free = shares.clip(0)[:, :, None]
        enough = free >= typical.sizes
        able = enough.sum(axis=1)
        small = np.where(enough, 0, free).sum(axis=1)
        fits = (
            (cpu[:, None] >= typical.cpu)
            & (memory[:, None] >= typical.memory)
            & (able[:, typical.size] >= typical.gpus)
        )
        fits &= typical.hosts[nodes] & (typical.gpus > 0)
        fragments: Floats = (
            np.where(fits, small[:, typical.size], free.sum(axis=1)) @ typical.weight
        )
        return fragments

    def _learn(self) -> None:
        self._lesson = max(FIRST_LESSON, NEXT_LESSON * self._mix.total)
        self._typical = _typical(self._mix, self._cluster)
        self._scores: dict[Demand, _Scores] = {}
        cluster = self._cluster
        self._present = self._fragments(
            np.arange(len(cluster.nodes)), cluster.cpu, cluster.memory, cluster.shares
        )

    def _changed(self, node: int) -> None:
        cluster = self._cluster
        row = slice(node, node + 1)
        self._state[node] += 1
        self._present[row] = self._fragments(
            np.array([node]), cluster.cpu[row], cluster.memory[row], cluster.shares[row]
        )


class BestFit:
    """The node with the least CPU and GPU left, each as a share of the largest node's;
    the fullest GPU on it.
    """

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._cpu = max((node.cpu_milli for node in cluster.nodes), default=0) or 1
        self._gpu = WHOLE * (max((node.gpus for node in cluster.nodes), default=0) or 1)

    def arrived(self, demand: Demand) -> None:
        """Nothing to learn."""

    def choose(self, demand: Demand) -> PlacementTarget | None:
        """The fullest node that fits, or None."""
        cluster = self._cluster
        left = cluster.cpu / self._cpu + cluster.shares.clip(0).sum(axis=1) / self._gpu
        fitting = cluster.fitting(demand)
        if not fitting.any():
            return None
        node = int(np.where(fitting, left, np.inf).argmin())
        least = max(1, demand.share_milli)
        able = sorted(
            (share, gpu)
            for gpu, share in enumerate(cluster.shares[node].tolist())
            if share >= least
        )
        fullest = sorted(gpu for _, gpu in able[: demand.gpus])
        return PlacementTarget(node=node, gpus=tuple(fullest))


def _typical(mix: DemandMix, cluster: ClusterState) -> _Typical:
    popular = sorted(mix.items(), key=lambda item: -item[1])
    kept: list[tuple[Demand, float]] = []
    total = 0.0
    for demand, count in popular:
        if total >= POPULAR * mix.total:
            break
        kept.append((demand, count))
        total += count
    sizes = sorted({demand.share_milli for demand, _ in kept} | {WHOLE})
    everywhere = np.ones(len(cluster.nodes), dtype=np.bool_)
    hosts = [
        cluster.of_models(demand.models) if demand.models else everywhere
        for demand, _ in kept
    ]
    return _Typical(
        weight=np.array([count for _, count in kept], dtype=np.float64)
        / max(1.0, total),
        cpu=np.array([demand.cpu_milli for demand, _ in kept], dtype=np.float64),
        memory=np.array([demand.memory_mib for demand, _ in kept], dtype=np.float64),
        gpus=np.array([demand.gpus for demand, _ in kept], dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        size=np.array(
            [sizes.index(demand.share_milli) for demand, _ in kept], dtype=np.int64
        ),
        hosts=np.array(hosts, dtype=np.bool_)
        .reshape(len(kept), len(cluster.nodes))
        .T.copy(),
    )
