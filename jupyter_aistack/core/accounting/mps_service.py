"""Whom an MPS server works for: drivers count the work of its clients as its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import UnitSample


@dataclass(frozen=True, kw_only=True)
class MPSService:
    """The MPS servers of one GPU, and whom they serve.

    NVIDIA's MPS documentation has tools count what clients do as the server's, and
    drivers do so: a client has no utilisation of its own (NVIDIA/dra-driver-nvidia-gpu
    PR 1143, driver 580).

    Attributes:
        leases: those that a server holds.
        servers: the processes known to be servers of ours.
        clients: granted shares of the leases that may have a client.
    """

    leases: frozenset[str] = frozenset()
    servers: frozenset[int] = frozenset()
    clients: Mapping[str, float] = field(default_factory=dict)

    def shares_of(self, work: float) -> dict[str, float]:
        """A server's work by lease: all of it for a lease that is alone, else by
        granted share, which is an estimate.
        """
        total = sum(self.clients.values())
        parts: dict[str, float] = {}
        if work <= 0 or total <= 0:
            return parts
        for lease, share in self.clients.items():
            part = work * share / total
            parts[lease] = part
        return parts

    def estimated(self, work: float) -> frozenset[str]:
        """The leases whose part of a server's work is an estimate."""
        if work > 0 and len(self.clients) > 1:
            return frozenset(self.clients)
        return frozenset()


NO_SERVICE = MPSService()


def is_by_mps(lease: Lease) -> bool:
    """Whether a lease's processes are clients of an MPS server."""
    level = lease.enforced_by
    if level is None:
        return False
    return level.is_by_mps


def served_leases(
    leases: Mapping[str, Lease], pids: Mapping[str, frozenset[int]], unit: UnitSample
) -> dict[str, float]:
    """The granted shares of the leases that may have clients at an MPS server: those of
    which a process is listed on its GPU, or whose processes cannot be seen.
    """
    served: dict[str, float] = {}
    for lease_id, lease in leases.items():
        own = pids.get(lease_id)
        if not is_by_mps(lease):
            continue
        if _may_have_clients(own, unit):
            served[lease_id] = _granted_share(lease)
    return served


def _may_have_clients(pids: frozenset[int] | None, unit: UnitSample) -> bool:
    listed = unit.memory
    if pids is None:
        return True
    if listed is None:
        return True
    return not pids.isdisjoint(listed)


def _granted_share(lease: Lease) -> float:
    """A lease that MPS holds has one slice."""
    fractions = [slice_.fraction for slice_ in lease.slices]
    return float(sum(fractions))
