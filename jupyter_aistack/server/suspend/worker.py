"""Carries out the transfers of this server's kernels that the ledger says are to be
made, and notes what has come of them.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device_state import DeviceState, StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.exceptions import AIStackError, LeaseError
from jupyter_aistack.system.users import current_user

from . import lease_lock
from .executor import SuspendExecutor
from .kernel_agent import Busy

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

IN_TRANSFER = frozenset({StatePhase.PARKING, StatePhase.RESTORING})
Mark = tuple[float, int | None]
"""When a lease was in use last, and its root process: as long as both are the same, a
look at it would find the same."""


@dataclass(frozen=True, kw_only=True)
class TransferClaim:
    """A lease that a thread of this server works on.

    Attributes:
        lock: keeps other servers off.
        is_done: set when the work is over.
    """

    lock: socket.socket
    is_done: threading.Event = field(default_factory=threading.Event)


class SuspendWorker:
    """Finds out what is to be done, and does it. Call it in threads; one thread of one
    server works on a lease at a time.

    Args:
        broker: reads and writes the ledger.
        executor: moves the states.
        is_own: whether a lease's kernel is managed by this server.
        log: where failures go.
    """

    def __init__(
        self,
        broker: Broker,
        executor: SuspendExecutor,
        *,
        is_own: Callable[[Lease], bool],
        log: logging.Logger,
    ) -> None:
        self._broker = broker
        self._executor = executor
        self._is_own = is_own
        self._log = log
        self._lock = threading.Lock()
        self._claims: dict[str, TransferClaim] = {}
        self._checked: dict[str, Mark] = {}

    # -- what is to be done ------------------------------------------------------------

    def owned_leases(self) -> list[Lease]:
        """The suspendable leases that this server manages."""
        return [
            lease for lease in self._broker.leases() if self._is_looked_after(lease)
        ]

    def _is_looked_after(self, lease: Lease) -> bool:
        if lease.residence is None or lease.state is LeaseState.RELEASING:
            return False
        return self._is_own(lease)

    def claim(self, lease: Lease) -> bool:
        """Whether there is unclaimed work for a lease; the caller does it then, by
        `work`.
        """
        if not self._is_due(lease):
            return False
        with self._lock:
            if lease.id in self._claims:
                return False
            lock = lease_lock.acquire(lease.id)
            if lock is None:
                return False
            self._claims[lease.id] = TransferClaim(lock=lock)
            return True

    def _is_due(self, lease: Lease) -> bool:
        if self.is_in_transfer(lease):
            return True
        # A pinned lease is checked again once it was in use or its process changed.
        return _may_be_checked(lease) and self._checked.get(lease.id) != _mark(lease)

    def is_in_transfer(self, lease: Lease) -> bool:
        """Whether its state is on its way, and not only to be inspected."""
        return lease.residence is not None and lease.residence.phase in IN_TRANSFER

    # -- doing it ----------------------------------------------------------------------

    def work(self, lease: Lease) -> None:
        """Do what was claimed, then run a cycle of the broker. Never raises."""
        try:
            lease = self._broker.lease(lease.id)
            if lease.residence is not None and lease.is_live:
                self._do(lease, lease.residence)
        except LeaseError as error:  # it ended, or has another process now
            self._log.info("lease %s: %s", lease.id, error.message)
        except Exception:
            self._log.warning(
                "the state of lease %s could not be moved", lease.id, exc_info=True
            )
        finally:
            self.give_up(lease)
        with contextlib.suppress(AIStackError):  # the next turn is soon
            self._broker.cycle()

    def give_up(self, lease: Lease) -> None:
        """End a claim: its work is done, or will not be."""
        with self._lock:
            claim = self._claims.pop(lease.id, None)
        if claim is not None:
            claim.lock.close()
            claim.is_done.set()

    def _do(self, lease: Lease, state: DeviceState) -> None:
        if state.phase is StatePhase.PARKING:
            outcome = self._executor.suspend(lease, lambda: self._is_wanted(lease.id))
        elif state.phase is StatePhase.RESTORING:
            outcome = self._executor.resume(lease)
        else:
            self._check(lease, state)
            return
        after = self._broker.update_device_state(lease.id, lease.token, outcome)
        self._checked[lease.id] = _mark(after)

    def _check(self, lease: Lease, state: DeviceState) -> None:
        """Note whether a lease on its device may be suspended; what was against it may
        be gone.
        """
        if not _may_be_checked(lease):
            return
        try:
            why = self._executor.why_not_suspendable(lease)
        except Busy:  # the end of its cell is noticed, and it is checked then
            return
        self._checked[lease.id] = _mark(lease)
        if why != state.pinned:
            self._broker.update_device_state(
                lease.id, lease.token, lambda held: steps.with_pin_reason(held, why)
            )

    def _is_wanted(self, lease_id: str) -> bool:
        state = self._broker.lease(lease_id).residence
        return state is not None and state.wanted_at is not None

    # -- before a process is killed ----------------------------------------------------

    def suspend_before_kill(self, kernel_id: str, pid: int) -> None:
        """Make a process of a kernel, and those below it, safe to kill; waits for a
        transfer of theirs. Never raises.
        """
        try:
            # Ended leases too where states are restored: the process may have been
            # restored for a lease that has ended since.
            for lease in self._broker.leases(live=not self._executor.can_restore):
                is_kernels = lease.holder.is_kernel(current_user(), kernel_id)
                if is_kernels and lease.residence is not None:
                    self._suspend_before_kill(lease.id, pid)
        except Exception:
            self._log.warning(
                "kernel %s could not be made safe to end", kernel_id, exc_info=True
            )

    def _suspend_before_kill(self, lease_id: str, pid: int) -> None:
        self._wait_for_claim(lease_id)
        lease = self._broker.lease(lease_id)
        problem = self._executor.suspend_before_kill(lease, pid)
        if problem:
            self._log.warning(
                "kernel %s is ended with its state on the device: %s",
                lease.holder.id,
                problem,
            )

    def _wait_for_claim(self, lease_id: str) -> None:
        with self._lock:
            claim = self._claims.get(lease_id)
        if claim is not None:
            claim.is_done.wait()

    def forget(self) -> None:
        """Check all again: what can be done on this host has changed."""
        self._checked.clear()


def _may_be_checked(lease: Lease) -> bool:
    """Whether it is on its device, idle, and pinned for a reason that may be gone."""
    state = lease.residence
    if state is None or state.phase is not StatePhase.RESIDENT:
        return False
    return bool(state.pinned) and not state.is_busy


def _mark(lease: Lease) -> Mark:
    active_at = lease.residence.active_at if lease.residence is not None else 0.0
    return active_at, lease.holder.root_pid
