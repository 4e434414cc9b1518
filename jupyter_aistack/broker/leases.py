"""Leases: made ready for a process, in use, kept alive and given back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import replace

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    ConditionUpdate,
)
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    LeaseTransition,
    NoticeKind,
    advance,
)
from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.suspend.host_memory import to_environment
from jupyter_aistack.exceptions import (
    AIStackError,
    LeaseError,
    LeaseLost,
    NotEnforced,
    PrepareFailed,
    ProviderError,
    Refused,
)
from jupyter_aistack.ledger.rows import refuse_ended

from .cycle import SchedulingCycle
from .host_state import HostState
from .processes import HolderProcesses, running_pid
from .withdrawals import Withdrawals

log = logging.getLogger("jupyter_aistack")

_UNPREPARED = "its preparation was broken off"
_OF_PREPARATION = frozenset(
    {ConditionKind.ENFORCEMENT_REDUCED, ConditionKind.LIMIT_PENDING}
)
_OF_CHECK = frozenset(
    {
        ConditionKind.DEVICE_FAULT,
        ConditionKind.NOT_ENFORCED,
        ConditionKind.NOT_VERIFIED,
    }
)
"""What a preparation, and a check, find out; each replaces what an earlier one found.
A fault ends with the process that it hit, whose successor is checked anew.
"""


class Leases:
    """The leases of this host, from their grant to their end.

    Args:
        host_state: where they are written down, and the devices they are of.
        cycle: run when a lease has ended.
        processes: finds the leases whose holder is dead.
        withdrawals: ends what could not be prepared.
        not_enforced_action: what becomes of a lease whose process finds more than was
            granted.
    """

    def __init__(
        self,
        host_state: HostState,
        cycle: SchedulingCycle,
        processes: HolderProcesses,
        withdrawals: Withdrawals,
        not_enforced_action: NotEnforcedAction,
    ) -> None:
        self._host_state = host_state
        self._cycle = cycle
        self._processes = processes
        self._withdrawals = withdrawals
        self._releasing: set[str] = set()
        self._not_enforced_action = not_enforced_action

    # -- before a process uses it ------------------------------------------------------

    def prepare(self, lease: Lease) -> Preparation:
        """Make a lease's slices ready before a process starts to use them, and note
        what enforces them.

        Whatever else comes in between (the ledger fails, the user interrupts), a lease
        that has not been in use yet ends, unless another call has handed it out.

        Raises:
            PrepareFailed: the lease has been ended as failed. Not so a lease that was
                in use and whose GPU is closed: it opens as soon as all whose work broke
                have ended, and a kernel that is restarted first must not lose it.
            LeaseLost: an earlier call that could not be answered has had it taken back.
        """
        if self._withdrawals.revive(lease.request_id):
            refuse_ended(self._host_state.lease(lease.id))
        try:
            return self._prepare(lease)
        except BaseException as error:
            if self._is_lost_by(error, lease):
                self._fail_unprepared(lease, error)
            raise

    def _is_lost_by(self, error: BaseException, lease: Lease) -> bool:
        """Whether a lease ends because it could not be prepared."""
        if lease.state is LeaseState.GRANTED:
            return True
        return isinstance(error, PrepareFailed) and not self._is_on_faulty(lease)

    def _prepare(self, lease: Lease) -> Preparation:
        prepared = self.preparation(lease)
        self._cycle.limits.started_with(lease)
        self._record_enforcement(lease, prepared)
        pid = running_pid(lease.holder)
        reduced = None if pid is None else self._enter(lease, pid)
        return reduced or prepared

    def preparation(self, lease: Lease) -> Preparation:
        """What a process that uses the lease must be given. Asking changes nothing in
        the ledger.

        Raises:
            PrepareFailed: a provider cannot say now.
        """
        prepared = self._host_state.devices.prepare(lease)
        policy = self._cycle.suspend_policy
        limits = {} if policy is None else to_environment(policy)
        environment = {**prepared.environment, **limits, "AISTACK_LEASE": lease.id}
        return replace(prepared, environment=environment)

    def _is_on_faulty(self, lease: Lease) -> bool:
        faulty = self._host_state.faulty_devices()
        return any(slice_.device_id in faulty for slice_ in lease.slices)

    def _fail_unprepared(self, lease: Lease, error: BaseException) -> None:
        """End a lease, and close its devices with it; where it is the call that has
        failed and not the devices, another call may have handed it out.
        """
        why = error.message if isinstance(error, AIStackError) else ""
        is_of_devices = isinstance(error, PrepareFailed)
        end = self._withdrawals.fail if is_of_devices else self._withdrawals.withdraw
        end(lease.request_id, why or _UNPREPARED)
        self._cycle.follow_up()

    def _record_enforcement(self, lease: Lease, prepared: Preparation) -> None:
        """Write down what enforces a lease, and why that is not more."""
        if as_prepared(lease, prepared) == lease:
            return
        self._host_state.ledger.bind(
            lease.id,
            lease.token,
            self._host_state.now(),
            enforced_by=prepared.enforced_by,
            conditions=_found_by(prepared),
        )

    def _enter(self, lease: Lease, pid: int) -> Preparation | None:
        """Put what enforces the lease around a process. Where that fails, note what
        enforces it then, and give that.
        """
        try:
            self._host_state.devices.enter(lease, pid)
        except ProviderError as error:
            log.warning("lease %s: %s", lease.id, error.message)
            with contextlib.suppress(PrepareFailed, LeaseError):
                prepared = self.preparation(lease)
                self._record_enforcement(self._host_state.lease(lease.id), prepared)
                return prepared
        return None

    # -- in use ------------------------------------------------------------------------

    def activate(
        self,
        lease_id: str,
        token: int,
        *,
        verified: bool | None,
        condition: Condition | None = None,
    ) -> Lease:
        """Note that a lease is in use, and whether it was found as granted.

        Args:
            condition: what the check has found; None where all is as granted. It
                replaces what an earlier check has found.

        Raises:
            NotEnforced: it was not, and such leases are revoked here: it has been ended
                as failed.
        """
        put = () if condition is None else (condition,)
        update = ConditionUpdate(put=put, clear=_OF_CHECK)
        if verified is False:
            log.warning("lease %s: %s", lease_id, update.text)
            if self._not_enforced_action is NotEnforcedAction.REVOKE:
                self._revoke(lease_id, token, update)
                raise NotEnforced(
                    f"{update.text}; the lease {lease_id} has been revoked",
                    lease_id=lease_id,
                )
        activate = LeaseTransition.ACTIVATE
        return self._step(
            lease_id, token, activate, verified=verified, conditions=update
        )

    def _revoke(self, lease_id: str, token: int, update: ConditionUpdate) -> None:
        fail = LeaseTransition.FAIL
        ended = self._step(lease_id, token, fail, verified=False, conditions=update)
        self._host_state.devices.unprepare(ended)
        # Its process may use the device still, and is foreign from now on.
        self._host_state.devices.forget()
        self._cycle.follow_up()

    def bind(
        self, lease_id: str, token: int, *, pid: int, root_pid: int | None = None
    ) -> Lease:
        """Tie a lease's life to process `pid`, and its use to the tree below
        `root_pid`.
        """
        self._host_state.show_presence()
        before = self._host_state.lease(lease_id).holder
        holder = self._host_state.identified(
            replace(before, pid=pid, pid_started_at=None, root_pid=root_pid)
        )
        bound = self._host_state.ledger.bind(
            lease_id, token, self._host_state.now(), holder=holder
        )
        if root_pid is not None:
            self._enter(bound, root_pid)
        return bound

    def record_activity(self, lease_ids: Iterable[str]) -> None:
        """Note that leases are in use now: a cell runs, or a device works. From its
        first use on, a lease can be idle.
        """
        self._host_state.ledger.touch(tuple(lease_ids), self._host_state.now())

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """Processes known to the server that enforces a lease; None where no server
        reports them. See `Provider.clients`.
        """
        return self._host_state.devices.clients(lease)

    def terminate(self, lease: Lease, pid: int) -> None:
        """End one process's work through the server that enforces its lease. Raises
        `ProviderError`.
        """
        self._host_state.devices.terminate(lease, pid)

    # -- what people are shown ---------------------------------------------------------

    def current(self, *, live: bool = True) -> tuple[Lease, ...]:
        """The leases of this host, newest first; with `live` only those that have not
        ended.

        Those whose process is gone are ended first. Where this process may not write,
        or somebody may take them over in a moment, they are shown as they will be.
        """
        leases = self._host_state.leases(live=live)
        gone = self._gone(leases)
        if gone:
            self._cycle.follow_up()
            leases = self._host_state.leases(live=live)
        now = self._host_state.now()
        shown = (
            advance(lease, LeaseTransition.REAP, now)
            if lease.id in gone and lease.is_live
            else lease
            for lease in leases
        )
        return tuple(lease for lease in shown if lease.is_live or not live)

    def _gone(self, leases: Iterable[Lease]) -> frozenset[str]:
        """Ids of the live leases whose process is gone; not of those that somebody
        tears down.
        """
        return self._processes.gone(
            lease
            for lease in leases
            if lease.is_live and lease.state is not LeaseState.RELEASING
        )

    # -- staying alive -----------------------------------------------------------------

    def renew(self, lease_id: str, token: int) -> Lease:
        """Keep a lease alive for another TTL."""
        now = self._host_state.now()
        return self._host_state.ledger.renew(
            lease_id, token, now, now + self._host_state.ttl_seconds
        )

    def renew_living(self) -> None:
        """Renew every lease of this host whose process lives and whose time is two
        thirds over.

        It does not matter which broker granted a lease: any that runs on the host keeps
        it alive. So a lease outlives the process that asked for it on another's behalf,
        and nothing in the holder need run to keep it.
        """
        soon = self._host_state.now() + self._host_state.ttl_seconds * 2 / 3
        for lease in self._host_state.leases():
            if lease.expires_at < soon and self._is_vouched_for(lease):
                with contextlib.suppress(LeaseError):  # it ended between the two calls
                    self.renew(lease.id, lease.token)

    def _is_vouched_for(self, lease: Lease) -> bool:
        """Whether its process lives. A lease being released is kept by whom tears it
        down: that process may be gone, and others wait for its slices.
        """
        if lease.state is LeaseState.RELEASING:
            return lease.id in self._releasing
        return self._processes.liveness(lease.holder) is Liveness.ALIVE

    def extend(self, lease_id: str, token: int, seconds: float) -> Lease:
        """Move the end of a time-limited lease `seconds` further; a lease without an
        end stays without.

        It counts as used now: a lease to be reclaimed for being idle is kept.

        Raises:
            LeaseLost: it has ended.
            Refused: it is being preempted for a request of higher priority.
        """
        lease = self._host_state.lease(lease_id)
        refuse_ended(lease)
        if lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT:
            raise Refused(
                "cannot extend: the capacity is needed by a higher-priority request"
            )
        if lease.active_at is not None:
            self.record_activity([lease_id])
        if lease.ends_at is None:
            return self._host_state.lease(lease_id)
        now = self._host_state.now()
        # Renewed as well: renewals stopped at the old end.
        return self._host_state.ledger.extend(
            lease_id,
            token,
            now,
            lease.ends_at + seconds,
            expires_at=now + self._host_state.ttl_seconds,
        )

    # -- the end -----------------------------------------------------------------------

    def release(self, lease_id: str, token: int) -> Lease:
        """Give a lease back. Releasing a lease that has ended already returns it as
        it ended.
        """
        self._releasing.add(lease_id)
        try:
            # Finished only after its devices are closed: once it has ended another
            # lease may be granted them, and would meet what this lease left.
            lease = self._step(lease_id, token, LeaseTransition.RELEASE)
            if not lease.is_live:
                return lease
            self._host_state.devices.unprepare(lease)
            # Its processes are foreign from now on, with all they still use.
            with self._processes.left_by(lease_id):
                self._host_state.devices.forget()
                return self._cycle.finish(lease)
        except LeaseLost:  # it has expired, or ended before
            return self._host_state.lease(lease_id)
        finally:
            self._releasing.discard(lease_id)

    def _step(
        self,
        lease_id: str,
        token: int,
        transition: LeaseTransition,
        *,
        conditions: ConditionUpdate | None = None,
        **changes: object,
    ) -> Lease:
        return self._host_state.ledger.step(
            lease_id,
            token,
            transition,
            self._host_state.now(),
            conditions=conditions,
            **changes,
        )


def as_prepared(lease: Lease, prepared: Preparation) -> Lease:
    """A lease with what enforces it, as a preparation has found."""
    conditions = _found_by(prepared).apply(lease.conditions)
    return replace(lease, enforced_by=prepared.enforced_by, conditions=conditions)


def _found_by(prepared: Preparation) -> ConditionUpdate:
    return ConditionUpdate(put=prepared.conditions, clear=_OF_PREPARATION)
