"""Placement policies by name, and a cluster that places demands by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from jupyter_aistack.exceptions import InvalidRequest

from .demand import Demand, Node, PlacementTarget

if TYPE_CHECKING:
    from .cluster_state import ClusterState

DEFAULT_POLICY = "scarcity"


class PackingPolicy(Protocol):
    """Decides where demands go; it never refuses what fits somewhere."""

    def arrived(self, demand: Demand) -> None:
        """Called with every demand before it is placed, once: a policy may learn the
        mix from it.
        """

    def choose(self, demand: Demand) -> PlacementTarget | None:
        """Where the demand goes; None when no node holds it. Changes nothing."""


class Packer:
    """A cluster, and the policy that fills it.

    Args:
        nodes: the nodes, empty.
        policy: one of `POLICIES`.
        history: demands known beforehand, as the mix to expect; the order does not
            matter.

    Attributes:
        cluster: what is free on the nodes.

    Raises:
        InvalidRequest: on an unknown policy.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        policy: str = DEFAULT_POLICY,
        history: Iterable[Demand] = (),
    ) -> None:
        make = _maker(policy)
        from .cluster_state import ClusterState

        self.cluster = ClusterState(nodes)
        self._policy = make(self.cluster, history)

    def place(self, demand: Demand) -> PlacementTarget | None:
        """Place the demand, or None when no node holds it now."""
        self._policy.arrived(demand)
        target = self._policy.choose(demand)
        if target is not None:
            self.cluster.allocate(demand, target)
        return target

    def free(self, demand: Demand, target: PlacementTarget) -> None:
        """Take back what `place` gave.

        Raises:
            InvalidRequest: when the target does not hold that much.
        """
        self.cluster.free(demand, target)


def _scarcity(cluster: ClusterState, history: Iterable[Demand]) -> PackingPolicy:
    from .scarcity import Scarcity

    return Scarcity(cluster, history)


def _fgd(cluster: ClusterState, history: Iterable[Demand]) -> PackingPolicy:
    from .fragmentation import FragmentationGradient

    return FragmentationGradient(cluster, history)


def _best_fit(cluster: ClusterState, history: Iterable[Demand]) -> PackingPolicy:
    from .fragmentation import BestFit

    return BestFit(cluster)


POLICIES: Mapping[str, Callable[[ClusterState, Iterable[Demand]], PackingPolicy]] = {
    "scarcity": _scarcity,
    "fgd": _fgd,
    "best-fit": _best_fit,
}


def _maker(policy: str) -> Callable[[ClusterState, Iterable[Demand]], PackingPolicy]:
    if policy not in POLICIES:
        allowed = ", ".join(POLICIES)
        raise InvalidRequest(
            f"policy: {policy!r} is unknown; allowed are {allowed}", field="policy"
        )
    return POLICIES[policy]
