"""The scheduling cycle: a snapshot becomes a plan, and the plan is written down."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Action, Grant, Plan, Reject, Snapshot
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.scheduling.cycle import plan
from jupyter_aistack.core.scheduling.lease_limits import with_limits
from jupyter_aistack.exceptions import AIStackError, LedgerConflict
from jupyter_aistack.ledger.actor import acting_by_itself
from jupyter_aistack.ledger.changes import Answer, Change, Finish, Submission

from .batches import Batches
from .host_state import HostState
from .limit_enforcer import LimitEnforcer
from .liveness import is_here
from .processes import HolderProcesses
from .suspend_support import SuspendSupport
from .withdrawals import Withdrawals

log = logging.getLogger("jupyter_aistack")

MAX_CONFLICTS = 200
"""How often a plan is made anew because another broker changed the ledger first."""


@dataclass(eq=False)
class CycleCall:
    """What one thread asks of a cycle, and what has become of it.

    Attributes:
        change: to be written down; None for a cycle alone.
        answer: the request or the lease after the change.
        error: why there is none, or why nothing could be planned.
        is_unplanned: the change was written without a plan, which came after it.
        events: what the cycle did.
    """

    change: Change | None = None
    answer: Request | Lease | None = None
    error: Exception | None = None
    is_unplanned: bool = False
    events: tuple[Event, ...] = ()

    def note(self, answer: Answer, *, is_unplanned: bool) -> None:
        """The change has been written down, or was refused."""
        self.is_unplanned = is_unplanned
        if isinstance(answer, AIStackError):
            self.error = answer
        else:
            self.answer = answer


class SchedulingCycle:
    """Ends what is over and grants what fits, as :mod:`core.scheduling.cycle` plans it.

    Args:
        host_state: what plans are made from, and where they are written.
        processes: finds the leases whose holder is dead.
        suspend_support: whether kernels can be suspended, and into how much memory.
        withdrawals: what must be taken back first.

    Attributes:
        limits: has what holds the leases follow their limits.
        placement_cache: what plans have worked out about the devices, kept from one
            plan to the next.
        suspend_policy: what leases are suspended by; None where it is switched off.
    """

    def __init__(
        self,
        host_state: HostState,
        processes: HolderProcesses,
        suspend_support: SuspendSupport,
        withdrawals: Withdrawals,
    ) -> None:
        self._host_state = host_state
        self._processes = processes
        self._suspend_support = suspend_support
        self._withdrawals = withdrawals
        self.suspend_policy = suspend_support.policy
        self.limits = LimitEnforcer(host_state, processes.pids)
        # Two threads of one broker would only overtake each other: the plan of
        # each would be refused because the other's came first.
        self._calls = Batches(self._serve, self._take_back)
        self.placement_cache = PlacementCache()

    def run(self) -> tuple[Event, ...]:
        """End what is over, grant what fits. Returns what happened.

        Raises:
            LedgerConflict: other brokers changed the ledger each time a plan was ready.
        """
        call = CycleCall()
        self._calls.do(call)
        if call.error is not None:
            raise call.error
        return call.events

    def submit(self, request: Request) -> Request:
        """Write a request down, and what becomes of it at once. What others ask for
        meanwhile is planned together with it.

        Returns:
            The request, decided or queued; an earlier request of its key as it stands.

        Raises:
            LedgerConflict: as `run`.
        """
        call = CycleCall(Submission(request))
        self._calls.do(call)
        if call.error is not None:
            raise call.error
        assert isinstance(call.answer, Request)
        if call.is_unplanned and call.answer.id == request.id:
            return self._host_state.request(request.id)
        return call.answer

    def finish(self, lease: Lease) -> Lease:
        """End a lease whose devices are closed, and grant to others what it leaves. That
        they could not be served is no failure of the end.

        Raises:
            LeaseLost: it had ended before.
        """
        call = CycleCall(Finish(lease.id, lease.token))
        self._calls.do(call)
        if isinstance(call.answer, Lease):
            if call.error is not None:
                log.warning("what waits is served later: %s", call.error)
            return call.answer
        assert call.error is not None
        raise call.error

    def follow_up(self) -> None:
        """Run after a change that has been written down. A failure is none of the
        change: what waits is served by the next regular cycle.
        """
        try:
            self.run()
        except AIStackError as error:
            log.warning("what waits is served later: %s", error.message)

    def _serve(self, calls: Sequence[CycleCall]) -> None:
        """Do what was asked for at once in one cycle."""
        try:
            with acting_by_itself():
                self._withdrawals.settle()
                events = self._run([call for call in calls if call.change is not None])
        except Exception as error:
            for call in calls:
                call.error = call.error or error
            return
        for call in calls:
            call.events = events

    def _take_back(self, call: CycleCall) -> None:
        """Whoever has submitted a request was interrupted, and does not know of it."""
        if isinstance(call.change, Submission):
            self._withdrawals.withdraw(call.change.request.id)

    def _run(self, asked: Sequence[CycleCall]) -> tuple[Event, ...]:
        """Write down what was asked for, with a plan that has been made with it."""
        inventory = self._host_state.inventory()

        # Read before the snapshot: a lease granted and prepared by another thread in
        # between is in neither, and would be taken for an ended lease and have its
        # devices closed under it.
        prepared = self._host_state.devices.prepared()
        happened: tuple[Event, ...] = ()

        for _ in range(MAX_CONFLICTS):
            now = self._host_state.now()
            changes = [call.change for call in asked if call.change is not None]
            snapshot = self._snapshot(inventory, now, changes)
            live = {lease.id for lease in snapshot.leases}
            todo = self._planned(snapshot, now)
            if todo.is_empty and not changes:
                self._unprepare_ended(prepared, live)
                self.limits.settle(todo, snapshot.leases)
                return happened

            self.limits.lower(todo, snapshot.leases)
            written = self._host_state.ledger.write(changes, todo, now)
            for call, answer in zip(asked, written.answers, strict=True):
                call.note(answer, is_unplanned=written.conflict is not None)
            asked = ()
            happened += written.events
            if written.conflict is not None:
                continue  # the plan is of a version that is over: make it anew
            self._unprepare_ended(prepared, live - todo.ended())
            self.limits.settle(todo, snapshot.leases)
            return happened
        raise LedgerConflict(
            "the ledger is too busy: other brokers changed it each time a plan was "
            "ready; try again"
        )

    def _planned(self, snapshot: Snapshot, now: float) -> Plan:
        """What is to be done, as far as it is for this broker to do."""
        todo = plan(
            self._within_reach(snapshot),
            now,
            ttl_seconds=self._host_state.ttl_seconds,
            cache=self.placement_cache,
        )
        todo = _own_part(todo, snapshot, self._host_state.devices.allowance)
        return with_limits(todo, snapshot, now, _elsewhere(snapshot))

    def _within_reach(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without the living requests of those who may use other devices
        than are planned with here: they would take places that they cannot have.
        """
        own = {"", self._host_state.devices.allowance}
        if {request.holder.allowance for request in snapshot.requests} <= own:
            return snapshot
        requests = tuple(
            request
            for request in snapshot.requests
            if request.holder.allowance in own or request.id in snapshot.dead
        )
        return replace(snapshot, requests=requests)

    def snapshot(self) -> Snapshot:
        """All that a plan is made from, as it is now."""
        return self._snapshot(self._host_state.inventory(), self._host_state.now())

    def _snapshot(
        self, inventory: Inventory, now: float, changes: Sequence[Change] = ()
    ) -> Snapshot:
        """All that a plan is made from, with changes that are to be written with it.

        These are written to whatever ledger there is then: what was known last does for
        a plan, and where that has changed a new one is made.
        """
        state = self._host_state.state_after(changes, now)
        verdicts = self._processes.verdicts(state.leases, state.requests, now)
        return Snapshot(
            inventory=inventory.with_drains(state.drains, now),
            leases=state.leases,
            requests=state.requests,
            policy=self._host_state.policy,
            accounts=state.accounts,
            reservations=state.reservations,
            version=state.version,
            dead=verdicts.dead,
            unvouched=verdicts.unvouched,
            suspend=self._suspend_support.policy_in_force(),
            host_bytes=self._suspend_support.capacity_bytes(state.leases),
            elsewhere=state.elsewhere,
            queued_elsewhere=state.queued_elsewhere,
        )

    def _unprepare_ended(self, prepared: Iterable[Lease], live: set[str]) -> None:
        """Undo what was prepared for leases that are over, however and through whichever
        broker they ended.
        """
        for lease in prepared:
            if lease.id not in live:
                self._host_state.devices.unprepare(lease)


def _elsewhere(snapshot: Snapshot) -> frozenset[str]:
    """Ids of the leases with a ceiling that are held in other PID namespaces, whose
    brokers see other processes.
    """
    elastic = (lease for lease in snapshot.leases if lease.up_to is not None)
    return frozenset(lease.id for lease in elastic if not is_here(lease.holder))


def _own_part(todo: Plan, snapshot: Snapshot, allowance: str) -> Plan:
    """A plan without the answers to requests of other PID namespaces, and of those who
    may use other devices: their brokers prepare what they grant.

    The places that it keeps for them stay theirs. Who may use all devices may be given
    any of them, but is not refused for what fewer devices lack.
    """
    rejected_elsewhere = _rejected_elsewhere(todo, snapshot, allowance)

    def is_own(action: Action) -> bool:
        if isinstance(action, Grant):
            holder = action.request.holder
            return is_here(holder) and holder.allowance in ("", allowance)
        if isinstance(action, Reject):
            return action.request_id not in rejected_elsewhere
        return True

    if all(map(is_own, todo.actions)):
        return todo
    return replace(todo, actions=tuple(filter(is_own, todo.actions)))


def _rejected_elsewhere(
    todo: Plan, snapshot: Snapshot, allowance: str
) -> frozenset[str]:
    """Ids of the requests that a plan rejects and another broker is to answer; those of
    the dead any broker rejects.
    """
    rejects = (action for action in todo.actions if isinstance(action, Reject))
    living = {reject.request_id for reject in rejects} - snapshot.dead
    if not living:
        return frozenset()
    asked = [request for request in snapshot.requests if request.id in living]
    return frozenset(
        request.id
        for request in asked
        if not is_here(request.holder) or request.holder.allowance != allowance
    )
