"""What is free on every node of a cluster, in arrays, so that one decision looks at all
nodes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from jupyter_aistack.exceptions import InvalidRequest

from .demand import WHOLE, Demand, Node, PlacementTarget

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class ClusterState:
    """The nodes of a cluster and what is free on them.

    Attributes:
        nodes: the nodes, empty, as they were given.
        cpu: free CPU of each node, in thousandths of a core.
        memory: free host memory of each node, in MiB.
        shares: free thousandths of each GPU, one row for each node; -1 where a node has
            fewer GPUs than others.
        free_milli: free thousandths of GPU on all nodes.
        whole: how many GPUs of each node are entirely free.
        watchers: called with the position of a node whenever its free resources have
            changed.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self.watchers: list[Callable[[int], None]] = []

        self.cpu = np.array([node.cpu_milli for node in nodes], dtype=np.float64)
        self.memory = np.array([node.memory_mib for node in nodes], dtype=np.float64)
        self.free_milli = WHOLE * sum(node.gpus for node in nodes)

        widest = max((node.gpus for node in nodes), default=0)
        rows = [[WHOLE] * node.gpus + [-1] * (widest - node.gpus) for node in nodes]
        self.shares = np.array(rows, dtype=np.int64).reshape(len(nodes), widest)
        self._largest_share = self.shares.max(axis=1, initial=-1)
        self.whole = (self.shares == WHOLE).sum(axis=1)
        self._of_models: dict[frozenset[str], Mask] = {}

    def fitting(self, demand: Demand) -> Mask:
        """Which nodes could hold the demand now."""
        has_cpu = self.cpu >= demand.cpu_milli
        has_memory = self.memory >= demand.memory_mib
        mask: Mask = has_cpu & has_memory
        if demand.models:
            mask &= self.of_models(demand.models)
        if demand.gpus == 1:
            mask &= self._largest_share >= demand.share_milli
        elif demand.gpus:
            mask &= self.able(demand.share_milli) >= demand.gpus
        return mask

    def could_hold(self, demand: Demand) -> Mask:
        """Which nodes could hold the demand if they were empty."""
        fits = [
            node.cpu_milli >= demand.cpu_milli
            and node.memory_mib >= demand.memory_mib
            and node.gpus >= demand.gpus
            for node in self.nodes
        ]
        mask: Mask = np.array(fits, dtype=np.bool_)
        if demand.models:
            return mask & self.of_models(demand.models)
        return mask

    def able(self, share_milli: int) -> Integers:
        """How many GPUs of each node could give that share."""
        if share_milli == WHOLE:
            whole: Integers = self.whole
            return whole
        count: Integers = (self.shares >= share_milli).sum(axis=1)
        return count

    def of_models(self, models: frozenset[str]) -> Mask:
        """Which nodes have GPUs of one of the models."""
        if models not in self._of_models:
            self._of_models[models] = np.array(
                [node.model in models for node in self.nodes], dtype=np.bool_
            )
        return self._of_models[models]

    def allocate(self, demand: Demand, target: PlacementTarget) -> None:
        """Give the target to the demand.

        Raises:
            InvalidRequest: it does not fit there.
        """
        self._change(demand, target, -1)

    def free(self, demand: Demand, target: PlacementTarget) -> None:
        """Take back what was given.

        Raises:
            InvalidRequest: that was never placed there.
        """
        self._change(demand, target, +1)

    def why_not(self, demand: Demand) -> str:
        """Why no node holds the demand now, in a few words: the first wish, in this
        order, that leaves no node.
        """
        mask = np.ones(len(self.nodes), dtype=np.bool_)
        if demand.models:
            mask = self.of_models(demand.models)
        if not mask.any():
            return "no such model"
        if demand.gpus:
            mask = mask & (self.able(demand.share_milli) >= demand.gpus)
        if not mask.any():
            if demand.share_milli == WHOLE:
                return "no GPUs free"
            return "no share free"
        mask = mask & (self.cpu >= demand.cpu_milli)
        if mask.any():
            return "no memory beside free GPUs"
        return "no CPU beside free GPUs"

    def _change(self, demand: Demand, target: PlacementTarget, sign: int) -> None:
        """Add (+1) or take (-1) what a demand asks for, and tell the watchers."""
        position = target.node
        node = self.nodes[position]
        cpu = self.cpu[position] + sign * demand.cpu_milli
        memory = self.memory[position] + sign * demand.memory_mib
        shares: list[int] = self.shares[position].tolist()
        is_within = 0 <= cpu <= node.cpu_milli and 0 <= memory <= node.memory_mib
        if not is_within or not _change_shares(shares, demand, target, node, sign):
            what = "does not fit on" if sign < 0 else "was never placed on"
            gpus = list(target.gpus)
            raise InvalidRequest(
                f"spot: the demand {what} GPUs {gpus} of node {node.name}", field="spot"
            )

        self.cpu[position] = cpu
        self.memory[position] = memory
        self.shares[position] = shares
        self.free_milli += sign * demand.gpus * demand.share_milli
        self._largest_share[position] = max(shares, default=-1)
        self.whole[position] = shares.count(WHOLE)
        for notify in self.watchers:
            notify(position)


def _change_shares(
    shares: list[int], demand: Demand, target: PlacementTarget, node: Node, sign: int
) -> bool:
    """Change the shares of the GPUs of a node. Returns whether that makes sense."""
    is_count_right = len(set(target.gpus)) == demand.gpus
    if not is_count_right or any(not 0 <= gpu < node.gpus for gpu in target.gpus):
        return False
    for gpu in target.gpus:
        shares[gpu] += sign * demand.share_milli
    return all(0 <= shares[gpu] <= WHOLE for gpu in target.gpus)
