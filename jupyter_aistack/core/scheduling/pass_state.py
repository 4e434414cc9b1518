"""What one pass over the queue starts from, and what it has come to so far."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Action, Snapshot
from jupyter_aistack.core.model.policy import GpuSharing
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.cache import DeviceFacts
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.tenants import EVERYBODY, Tenants
from jupyter_aistack.core.placement.verdict import PlacementFailure, PlacementVerdict
from jupyter_aistack.core.suspend.placement import ResumePlacement
from jupyter_aistack.core.suspend.transfers import TransferPlan

from .capacity_holds import (
    CapacityHold,
    Shares,
    held_for_others,
    reservation_holds,
    sum_shares,
)
from .fair_share import FairShare
from .start_times import ReleaseTimes, Start, earliest_start_beside


class PassState:
    """The leases, the free capacity and the shares while a pass goes on.

    Args:
        snapshot: what there is.
        held: the leases that stay.
        now: seconds since the epoch.
        facts: what is known of the snapshot's inventory.
        transfers: which leases may be suspended for others; None where none may be.

    Attributes:
        held: the leases held now, those granted in this pass included.
        capacity: what is free beside them.
        fair_share: what queues and users hold, likewise.
        placement: where requests may be placed beside suspended kernels.
        holds: capacity that is held for others.
        reserved_queues: the queues that have reservations.
        actions: what has been decided, in order.
        decided: ids of the requests that are granted or rejected.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        held: Sequence[Lease],
        now: float,
        *,
        facts: DeviceFacts,
        transfers: TransferPlan | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.now = now
        self.transfers = transfers
        self.held = list(held)
        self.capacity = capacity_beside(held, facts, snapshot.policy.gpu_sharing)
        self.placement = ResumePlacement(snapshot, transfers, now)
        self.fair_share = FairShare(
            snapshot.policy,
            snapshot.inventory,
            held,
            snapshot.accounts,
            snapshot.reservations,
            now,
            snapshot.elsewhere,
        )
        self.actions: list[Action] = []
        self.decided: set[str] = set()
        self.holds: list[CapacityHold] = []
        self.reserved_queues: set[str] = set()
        self.reset_holds()

    def reset_holds(self) -> None:
        """Nothing is promised or held any more but what is reserved."""
        self.fair_share.clear_promises()
        self.holds = list(
            reservation_holds(
                self.snapshot.reservations, self.capacity, self.held, self.now
            )
        )
        self.reserved_queues = {hold.queue for hold in self.holds}

    def when_idle(self, request: Request) -> PlacementVerdict:
        """Where a request would go if nothing were held."""
        return self.capacity.when_idle(request.spec, request.holder.host)

    def verdict(self, request: Request) -> PlacementVerdict:
        """Where a request goes now; or why it does not."""
        kept: Shares = {}
        if self.holds:
            kept = held_for_others(self.holds, request, self.now)
        if request.queue in self.reserved_queues:
            kept = self._beside_own_reservation(kept, request.queue)
        return self.placement.place(self.capacity, request, kept)

    def _beside_own_reservation(self, kept: Shares, queue: str) -> Shares:
        """What a queue whose reservation runs must leave alone: nothing is kept for
        others of what is reserved for it.
        """
        own = sum_shares(
            hold.shares for hold in self.holds if hold.is_for_members(queue, self.now)
        )
        left = dict(kept)
        for device_id, share in own.items():
            if device_id in left:
                not_reserved = self.capacity.share(device_id) - share
                left[device_id] = min(left[device_id], max(Fraction(0), not_reserved))
        return left

    def blocking_holds(self, request: Request, at: float) -> list[CapacityHold]:
        """The reservations whose capacity a request cannot have at a time."""
        return [hold for hold in self.holds if hold.blocks(request, at)]

    def open_capacity(
        self, request: Request, at: float, capacity: Capacity
    ) -> Capacity:
        """`capacity` less what reservations keep from a request at a time."""
        shut = held_for_others(self.blocking_holds(request, at), request, at)
        if not shut:
            return capacity
        left = capacity.copy()
        for device_id, share in shut.items():
            left.hold(device_id, share)
        return left

    def start(
        self,
        request: Request,
        ends: ReleaseTimes,
        beside: Sequence[CapacityHold] = (),
    ) -> Start:
        """When a request can start as far as is known, and on which devices.

        Args:
            request: the request.
            ends: when held slices are given back.
            beside: what it must do without as well.
        """
        return earliest_start_beside(
            [*self.blocking_holds(request, self.now), *beside],
            request.spec,
            self.capacity,
            ends,
            self.now,
            host=request.holder.host,
            user=request.holder.user,
        )

    def hold_of(
        self, request: Request, shares: Shares, starts_at: float
    ) -> CapacityHold:
        """Capacity that is held for a request, and the GPUs that are its user's alone
        then.
        """
        return CapacityHold(
            shares=shares,
            starts_at=starts_at,
            user=request.holder.user,
            sole=self.capacity.tenants.are_of(shares),
        )


def capacity_beside(
    held: Sequence[Lease], facts: DeviceFacts, sharing: GpuSharing
) -> Capacity:
    """What is free beside leases."""
    tenants = EVERYBODY
    if sharing is GpuSharing.SAME_USER:
        tenants = Tenants(facts.inventory.devices)
    capacity = Capacity(facts, tenants=tenants)
    for lease in held:
        # Also what is suspended, and occupies nothing, keeps its user there.
        tenants.move_in(lease.slices, lease.holder.user)
        capacity.allocate(lease.occupied)
    return capacity


def size_of(verdict: PlacementVerdict) -> tuple[Fraction, int]:
    """Device equivalents and number of slices; nothing for a request that has no place
    now though it could.
    """
    if isinstance(verdict, PlacementFailure):
        return Fraction(0), 0
    return equivalents(verdict), len(verdict)
