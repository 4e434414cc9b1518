"""Carries out the moves of this server's kernels that the ledger says are to be made,
and notes what came of them.
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

from .executor import Busy, SuspendExecutor
from .lease_lock import take

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

MOVING = frozenset({StatePhase.PARKING, StatePhase.RESTORING})


@dataclass(frozen=True, kw_only=True)
class TransferClaim:
    """A lease that a thread of this server looks after now."""

    turn: socket.socket
    is_done: threading.Event = field(default_factory=threading.Event)


class SuspendWorker:
    """What of it is to be done, and doing it. Call it in threads; one thread of one
    server moves a lease at a time.

    Args:
        broker: reads and writes the ledger.
        moves: does it.
        is_own: whether a lease's kernel is one that this server moves.
        log: where failures go.
    """

    def __init__(
        self,
        broker: Broker,
        moves: SuspendExecutor,
        *,
        is_own: Callable[[Lease], bool],
        log: logging.Logger,
    ) -> None:
        self._broker = broker
        self._moves = moves
        self._is_own = is_own
        self._log = log
        self._lock = threading.Lock()
        self._under_way: dict[str, TransferClaim] = {}
        self._looked_at: dict[str, tuple[float, int | None]] = {}

    # -- what is to be done ------------------------------------------------------------

    def own(self) -> list[Lease]:
        """The leases with a residence that this server looks after."""
        found = (
            lease for lease in self._broker.leases() if lease.residence is not None
        )
        return [
            lease
            for lease in found
            if lease.state is not LeaseState.RELEASING and self._is_own(lease)
        ]

    def claim(self, lease: Lease) -> bool:
        """Whether there is something to do for a lease that nobody does yet; the caller
        does it then, by `work`.
        """
        if not self._is_due(lease):
            return False
        with self._lock:
            turn = None if lease.id in self._under_way else take(lease.id)
            if turn is None:
                return False
            self._under_way[lease.id] = TransferClaim(turn=turn)
            return True

    def _is_due(self, lease: Lease) -> bool:
        residence = lease.residence
        if residence is None:
            return False
        return self.is_moving(lease) or (
            _may_be_looked_at(residence) and self._has_changed(lease, residence)
        )

    def is_moving(self, lease: Lease) -> bool:
        """Whether its state is on its way, and not only to be looked at."""
        return lease.residence is not None and lease.residence.phase in MOVING

    def _has_changed(self, lease: Lease, residence: DeviceState) -> bool:
        """Whether one that is pinned has been in use, or become another process, since
        it was looked at.
        """
        return self._looked_at.get(lease.id) != (
            residence.active_at,
            lease.holder.root_pid,
        )

    # -- doing it ----------------------------------------------------------------------

    def work(self, lease: Lease) -> None:
        """Do what was claimed, then let the broker go on from there. Never raises."""
        try:
            lease = self._broker.lease(lease.id)
            if lease.residence is not None and lease.is_live:
                self._do(lease, lease.residence)
        except LeaseError as error:  # it ended, or its process is another one now
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
        """What was claimed is done, or will not be."""
        with self._lock:
            claim = self._under_way.pop(lease.id, None)
        if claim is not None:
            claim.turn.close()
            claim.is_done.set()

    def _do(self, lease: Lease, residence: DeviceState) -> None:
        if residence.phase is StatePhase.PARKING:
            change = self._moves.park(lease, lambda: self._is_wanted(lease.id))
        elif residence.phase is StatePhase.RESTORING:
            change = self._moves.bring_back(lease)
        elif _may_be_looked_at(residence):
            self._look_at(lease, residence)
            return
        else:
            return
        after = self._broker.update_device_state(lease.id, lease.token, change)
        self._looked_at[lease.id] = _mark(after)

    def _look_at(self, lease: Lease, residence: DeviceState) -> None:
        """Say whether one that is there may be moved; what made it unfit may be
        gone.
        """
        try:
            why = self._moves.find_pin_reason(lease)
        except Busy:  # its end is seen, and it is looked at then
            return
        self._looked_at[lease.id] = _mark(lease)
        if why != residence.pinned:
            self._broker.update_device_state(
                lease.id, lease.token, lambda held: steps.with_pin_reason(held, why)
            )

    def _is_wanted(self, lease_id: str) -> bool:
        residence = self._broker.lease(lease_id).residence
        return residence is not None and residence.wanted_at is not None

    # -- before the end ----------------------------------------------------------------

    def suspend_before_kill(self, kernel_id: str, pid: int) -> None:
        """Make a process of a kernel, and those below it, safe to kill; waits for a
        move of theirs. Never raises.

        They may have been restored for a lease that has ended since.
        """
        try:
            for lease in self._broker.leases(live=not self._moves.can_restore):
                if lease.holder.id == kernel_id and lease.residence is not None:
                    self._wait_for(lease.id)
                    problem = self._moves.suspend_before_kill(
                        self._broker.lease(lease.id), pid
                    )
                    if problem:
                        self._log.warning(
                            "kernel %s is ended with its state on the device: %s",
                            kernel_id,
                            problem,
                        )
        except Exception:
            self._log.warning(
                "kernel %s could not be made safe to end", kernel_id, exc_info=True
            )

    def _wait_for(self, lease_id: str) -> None:
        with self._lock:
            claim = self._under_way.get(lease_id)
        if claim is not None:
            claim.is_done.wait()

    def forget(self) -> None:
        """Look at all again: what can be done on this host has changed."""
        self._looked_at.clear()


def _may_be_looked_at(residence: DeviceState) -> bool:
    """Whether it is there, idle, and said to be unfit, which may have changed."""
    return (
        residence.phase is StatePhase.RESIDENT
        and not residence.is_busy
        and bool(residence.pinned)
    )


def _mark(lease: Lease) -> tuple[float, int | None]:
    return (
        lease.residence.active_at if lease.residence is not None else 0.0,
        lease.holder.root_pid,
    )
