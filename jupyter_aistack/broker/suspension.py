"""Where the device state of a broker's leases is: who is suspended, who wants to be,
and what stands against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device import Inventory, SliceKind
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
    cell_begins,
    cell_ends,
    pin,
    request_action,
    with_pin_reason,
)
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import Policy, SuspendPolicy
from jupyter_aistack.core.suspend.build import build_suspend_input, pin_reasons
from jupyter_aistack.core.suspend.capability import SWITCHED_OFF, SuspendCapability
from jupyter_aistack.core.suspend.feasibility import why_not_suspendable
from jupyter_aistack.core.suspend.model import host_capacity
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.rows import refuse_ended
from jupyter_aistack.system.memory import available_bytes

from .devices import DeviceManager

NO_BOUND = 2**60
"""Bytes of host memory, where what is suspended takes none."""


class Suspension(ABC):
    """The part of a broker that has to do with suspension; it holds no rule of its own
    either.
    """

    ledger: Ledger
    devices: DeviceManager
    policy: Policy
    clock: Callable[[], float]
    suspend: SuspendPolicy | None
    suspend_ready: Callable[[], str]
    _host_memory: Callable[[], int]

    @abstractmethod
    def inventory(self) -> Inventory:
        """The devices."""

    @abstractmethod
    def leases(self, *, live: bool = True) -> tuple[Lease, ...]:
        """The leases."""

    @abstractmethod
    def lease(self, lease_id: str) -> Lease:
        """One lease."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """What a plan is made from."""

    @abstractmethod
    def cycle(self) -> tuple[Event, ...]:
        """Take a turn."""

    def _untested(self) -> SuspendCapability:
        return (
            SWITCHED_OFF
            if self.suspend is None
            else SuspendCapability(why=self.suspend_ready())
        )

    def suspend_capacity_bytes(self) -> int:
        """How many more bytes of the host's memory suspended state may take now."""
        leases = self.leases()
        return self._host_bytes(leases) - sum(map(_parked_bytes, leases))

    def with_pin_reasons(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        """These leases, pinned where others keep them on their devices now: the host
        has no room for all, say.
        """
        if self.suspend is None or not any(_may_leave(lease) for lease in leases):
            return tuple(leases)
        snapshot = self.snapshot()
        house = build_suspend_input(snapshot, snapshot.leases)
        why = pin_reasons(house) if house is not None else {}
        return tuple(_pinned(lease, why.get(lease.id, "")) for lease in leases)

    def moves(self) -> tuple[Lease, ...]:
        """The leases whose device state is on its way out or in: each is carried out by
        the server of its holder.
        """
        moving = (StatePhase.PARKING, StatePhase.RESTORING)
        return tuple(
            lease
            for lease in self.leases()
            if lease.residence and lease.residence.phase in moving
        )

    def update_device_state(
        self, lease_id: str, token: int, change: Callable[[DeviceState], DeviceState]
    ) -> Lease:
        """Note where the device state of a lease is now; `change` is a step of
        :mod:`.core.residence`.

        Raises:
            LeaseError: the step does not apply: something else has happened to it
                meanwhile. It is as it was.
            LeaseLost, StaleToken: the lease has ended, or another has taken its place.
        """
        before = self.lease(lease_id)
        lease = self.ledger.update_device_state(lease_id, token, self.clock(), change)
        if (
            lease.residence
            and before.residence
            and lease.residence.phase is not before.residence.phase
        ):
            self.devices.has_moved(lease)
        return lease

    def begin_cell(self, lease_id: str) -> Lease:
        """A cell of its holder wants the devices. Where its residence is then
        ``wanted_at``, it waits to have them.
        """
        lease = self._change(lease_id, lambda one: cell_begins(one, self.clock()))
        if lease.residence is not None and lease.residence.wanted_at is not None:
            self.cycle()
            return self.lease(lease_id)
        return lease

    def end_cell(self, lease_id: str) -> Lease:
        """That cell is over. Who waits for its room is served by the next regular
        cycle.
        """
        return self._change(lease_id, lambda one: cell_ends(one, self.clock()))

    def ask(self, lease_id: str, asked: RequestedAction) -> Lease:
        """Its user wants it suspended, or back, whoever else needs the room.

        Raises:
            LeaseError: that cannot be, or makes no sense now; says why.
        """
        self._check_residence(lease_id)
        if asked is RequestedAction.SUSPEND:
            self._check_can_leave(lease_id)
        self._change(lease_id, lambda one: request_action(one, asked, self.clock()))
        self.cycle()
        return self.lease(lease_id)

    def keep(self, lease_id: str, is_kept: bool) -> Lease:
        """Its user wants it to stay on its devices whoever needs the room, or no
        longer.

        Raises:
            LeaseError: it is none that could be suspended.
        """
        self._check_residence(lease_id)
        self._change(lease_id, lambda one: pin(one, is_kept))
        self.cycle()
        return self.lease(lease_id)

    def _change(
        self, lease_id: str, change: Callable[[DeviceState], DeviceState]
    ) -> Lease:
        return self.update_device_state(lease_id, self.lease(lease_id).token, change)

    def _check_can_leave(self, lease_id: str) -> None:
        """A wish that the host has no room for would stay one for ever."""
        snapshot = self.snapshot()
        house = build_suspend_input(snapshot, snapshot.leases)
        one = (
            next((one for one in house.tenants if one.lease_id == lease_id), None)
            if house
            else None
        )
        why = (
            why_not_suspendable(house, one)
            if house and one and one.phase is StatePhase.RESIDENT
            else ""
        )
        if why:
            raise LeaseError(f"it cannot be suspended: {why}", lease_id=lease_id)

    def _check_residence(self, lease_id: str) -> None:
        lease = self.lease(lease_id)
        refuse_ended(lease)
        if lease.residence is None:
            raise LeaseError(
                f"this lease cannot be suspended: {self._why_no_residence(lease)}",
                lease_id=lease_id,
            )

    def _why_no_residence(self, lease: Lease) -> str:
        queue = self.policy.queue(lease.queue)
        if self.suspend is None:
            return "nothing is on this host; its administrator may set AIStack.suspend"
        if queue is None or not queue.suspend:
            return f"queue {lease.queue} lets none of its kernels be"
        return (
            self.suspend_ready()
            or "only a kernel with a share of a GPU, or with whole ones, can be"
        )

    def _host_bytes(self, leases: Iterable[Lease]) -> int:
        """Most of the host's memory that suspended state may take; what it takes now is
        not available, but counts.
        """
        with_residence = [lease for lease in leases if lease.residence is not None]
        if self.suspend is None and not with_residence:
            return 0
        parked = sum(map(_parked_bytes, with_residence))
        share = (self.suspend or SuspendPolicy()).host_share
        return parked + host_capacity(
            self._host_memory(), parked_bytes=parked, share=share
        )

    def _available_bytes(self) -> int:
        return NO_BOUND if self.inventory().is_simulated else available_bytes()


def _parked_bytes(lease: Lease) -> int:
    """Host memory that the state of a lease takes, as far as it is there for sure."""
    home = lease.residence
    if (
        home is None
        or home.phase not in (StatePhase.PARKED, StatePhase.RESTORING)
        or home.tier is SuspendMethod.SIMULATED
    ):
        return 0
    gpus = sum(piece.kind is not SliceKind.CPU for piece in lease.slices)
    return (home.state_bytes or 0) * gpus


def _may_leave(lease: Lease) -> bool:
    home = lease.residence
    return (
        lease.is_live
        and home is not None
        and home.phase is StatePhase.RESIDENT
        and not home.pinned
    )


def _pinned(lease: Lease, why: str) -> Lease:
    if not why or lease.residence is None or not _may_leave(lease):
        return lease
    return replace(lease, residence=with_pin_reason(lease.residence, why))
