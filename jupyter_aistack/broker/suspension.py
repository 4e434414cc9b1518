"""Suspension as the broker writes it down: which leases are suspended, which are to be,
and what stands against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    cell_begins,
    cell_ends,
    pin,
    request_action,
    with_pin_reason,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.suspend.build import build_suspend_input, pin_reasons
from jupyter_aistack.core.suspend.capability import BY_SERVERS_ALONE
from jupyter_aistack.core.suspend.feasibility import why_not_suspendable
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.rows import refuse_ended

from .cycle import SchedulingCycle
from .host_state import HostState
from .suspend_support import SuspendSupport, suspended_bytes

IN_TRANSFER = frozenset({StatePhase.PARKING, StatePhase.RESTORING})
Change = Callable[[DeviceState], DeviceState]
"""A step of a lease's device state; raises `LeaseError` where it does not apply."""


class Suspension:
    """The device states of this host's leases.

    Args:
        host_state: where they are written down.
        cycle: decides what is suspended and resumed; run when a user asks.
        support: whether this host can suspend, and into how much memory.
    """

    def __init__(
        self, host_state: HostState, cycle: SchedulingCycle, support: SuspendSupport
    ) -> None:
        self._host_state = host_state
        self._cycle = cycle
        self._support = support

    # -- reading -----------------------------------------------------------------------

    def capacity_bytes(self) -> int:
        """How many more bytes of the host's memory suspended state may take now."""
        leases = self._host_state.leases()
        return self._support.capacity_bytes(leases) - sum(map(suspended_bytes, leases))

    def with_pin_reasons(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        """These leases, shown as pinned where other leases keep them on their devices
        now: the host has no memory for all, say.
        """
        if self._support.policy is None or not any(map(_may_leave, leases)):
            return tuple(leases)
        snapshot = self._cycle.snapshot()
        host = build_suspend_input(snapshot, snapshot.leases)
        why = pin_reasons(host) if host is not None else {}
        return tuple(_shown_pinned(lease, why.get(lease.id, "")) for lease in leases)

    def transfers(self) -> tuple[Lease, ...]:
        """The leases whose device state is on its way out or in: each is carried out by
        the server of its holder.
        """
        return tuple(
            lease
            for lease in self._host_state.leases()
            if lease.residence and lease.residence.phase in IN_TRANSFER
        )

    # -- writing -----------------------------------------------------------------------

    def update_device_state(self, lease_id: str, token: int, change: Change) -> Lease:
        """Note where the device state of a lease is now; `change` is a step of
        :mod:`core.model.device_state`.

        Raises:
            LeaseError: the step does not apply: something else has happened to it
                meanwhile. It is as it was.
            LeaseLost, StaleToken: the lease has ended, or another has taken its place.
        """
        before = self._host_state.lease(lease_id).residence
        lease = self._host_state.ledger.update_device_state(
            lease_id, token, self._host_state.now(), change
        )
        after = lease.residence
        if before and after and before.phase is not after.phase:
            self._host_state.devices.has_moved(lease)
        return lease

    def begin_cell(self, lease_id: str) -> Lease:
        """A cell of its holder is about to use the devices. Where the device state is
        then ``wanted_at``, the cell waits until it has been resumed.
        """
        lease = self._change(
            lease_id, lambda state: cell_begins(state, self._host_state.now())
        )
        if lease.residence is None or lease.residence.wanted_at is None:
            return lease
        self._cycle.follow_up()
        return self._host_state.lease(lease_id)

    def end_cell(self, lease_id: str) -> Lease:
        """That cell is over. Requests that wait for the capacity are served by the next
        regular cycle.
        """
        return self._change(
            lease_id, lambda state: cell_ends(state, self._host_state.now())
        )

    def request_action(self, lease_id: str, action: RequestedAction) -> Lease:
        """Its user wants it suspended, or resumed, whatever others need.

        Raises:
            LeaseError: that cannot be, or makes no sense now; says why.
        """
        self._check_suspendable(lease_id)
        if action is RequestedAction.SUSPEND:
            self._check_can_leave(lease_id)
        self._change(
            lease_id,
            lambda state: request_action(state, action, self._host_state.now()),
        )
        self._cycle.follow_up()
        return self._host_state.lease(lease_id)

    def set_pinned(self, lease_id: str, is_pinned_by_user: bool) -> Lease:
        """Its user wants it to stay on its devices whatever others need, or no longer.

        Raises:
            LeaseError: it is none that could be suspended.
        """
        self._check_suspendable(lease_id)
        self._change(lease_id, lambda state: pin(state, is_pinned_by_user))
        self._cycle.follow_up()
        return self._host_state.lease(lease_id)

    def _change(self, lease_id: str, change: Change) -> Lease:
        token = self._host_state.lease(lease_id).token
        return self.update_device_state(lease_id, token, change)

    # -- what stands against it --------------------------------------------------------

    def _check_can_leave(self, lease_id: str) -> None:
        """Refuse what the host has no memory for: it would be wanted for ever."""
        snapshot = self._cycle.snapshot()
        host = build_suspend_input(snapshot, snapshot.leases)
        if host is None:
            return
        for candidate in host.candidates:
            if candidate.lease_id != lease_id:
                continue
            is_resident = candidate.phase is StatePhase.RESIDENT
            why = why_not_suspendable(host, candidate) if is_resident else ""
            if why:
                raise LeaseError(f"it cannot be suspended: {why}", lease_id=lease_id)

    def _check_suspendable(self, lease_id: str) -> None:
        lease = self._host_state.lease(lease_id)
        refuse_ended(lease)
        if lease.residence is None:
            why = self._why_not_suspendable(lease)
            raise LeaseError(
                f"this lease cannot be suspended: {why}", lease_id=lease_id
            )

    def _why_not_suspendable(self, lease: Lease) -> str:
        if self._support.capability == BY_SERVERS_ALONE:
            return BY_SERVERS_ALONE.why
        if self._support.policy is None:
            return (
                "suspending is switched off on this host; its administrator may set "
                "AIStack.suspend"
            )
        queue = self._host_state.policy.queue(lease.queue)
        if queue is None or not queue.suspend:
            return f"queue {lease.queue} lets none of its kernels be suspended"
        return (
            self._support.capability.why_not
            or "only a kernel with a share of a GPU, or with whole ones, can be suspended"
        )


def _may_leave(lease: Lease) -> bool:
    state = lease.residence
    if state is None or not lease.is_live:
        return False
    return state.phase is StatePhase.RESIDENT and not state.pinned


def _shown_pinned(lease: Lease, why: str) -> Lease:
    if not why or lease.residence is None or not _may_leave(lease):
        return lease
    return replace(lease, residence=with_pin_reason(lease.residence, why))
