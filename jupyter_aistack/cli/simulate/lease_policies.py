"""Policies that lease whole GPUs to sessions, with the queue, the cycle and the idle
rules of the broker itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.lease import Lease, LeaseState, LeaseTransition, advance
from jupyter_aistack.core.model.plan import (
    Action,
    End,
    Grant,
    Notify,
    Snapshot,
    WithdrawNotice,
    grant_to_lease,
)
from jupyter_aistack.core.model.policy import DEFAULT_QUEUE, IdlePolicy, Policy, Queue
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.spec import Spec
from jupyter_aistack.core.model.usage_history import Account, charged
from jupyter_aistack.core.scheduling.cycle import plan
from jupyter_aistack.core.scheduling.idle import IdleStage, idle_stage

from .costs import Costs
from .hosts import HostPool, whole_gpus
from .replay import Notebook, SessionPolicy

_LATER = 1e-6
"""How much after its time a check is made, so that rounding does not make it a moment
too early.
"""


class SimulatedBroker:
    """Where sessions request leases: one queue, from which each host serves itself by
    the broker's own cycle.

    Args:
        idle: when unused leases are reclaimed.
    """

    def __init__(self, idle: IdlePolicy | None) -> None:
        self.queue = Queue(name=DEFAULT_QUEUE, idle=idle)
        self.waiting: dict[str, Notebook] = {}
        self._policy = Policy(queues=(self.queue,))
        self._accounts: dict[str, Account] = {}
        self._tokens = 0

    def submit(self, notebook: Notebook, spec: Spec, now: float) -> None:
        """A session joins the queue."""
        name = f"session-{notebook.session.number}"
        self._tokens += 1
        holder = Holder(kind=HolderKind.KERNEL, id=name, user=name, host="")
        notebook.request = Request(
            id=f"r-{self._tokens:07d}", spec=spec, holder=holder, submitted_at=now
        )
        self.waiting[notebook.request.id] = notebook

    def withdraw(self, notebook: Notebook) -> None:
        """A session leaves the queue, if it is in it."""
        if notebook.request is not None:
            self.waiting.pop(notebook.request.id, None)
            notebook.request = None

    def plan_cycle(
        self, inventory: Inventory, leases: Iterable[Lease], now: float, *, most: int
    ) -> tuple[Action, ...]:
        """What the broker of such a host would do now; requests for more than `most`
        GPUs go elsewhere.
        """
        fitting = [
            notebook.request
            for notebook in self.waiting.values()
            if notebook.session.gpus <= most
        ]
        requests = tuple(request for request in fitting if request is not None)
        accounts = [self._accounts.get(request.holder.user) for request in requests]
        snapshot = Snapshot(
            inventory=inventory,
            leases=tuple(leases),
            requests=requests,
            policy=self._policy,
            accounts=tuple(account for account in accounts if account is not None),
        )
        return plan(snapshot, now, ttl_seconds=math.inf).actions

    def grant(self, grant: Grant, now: float) -> Notebook:
        """A session leaves the queue with a lease, which is bound and in use at once."""
        notebook = self.waiting.pop(grant.request.id)
        self._tokens += 1
        lease = grant_to_lease(grant, f"l-{self._tokens:07d}", self._tokens, now)
        notebook.request = None
        notebook.lease = replace(
            advance(lease, LeaseTransition.ACTIVATE, now), active_at=now
        )
        notebook.slices = grant.slices
        return notebook

    def end(self, notebook: Notebook, step: LeaseTransition, now: float) -> None:
        """The lease of a session ends by `step`, and its user's account is charged."""
        lease = notebook.lease
        assert lease is not None
        notebook.lease = None
        if step is LeaseTransition.RELEASE:
            lease = advance(lease, step, now)
            step = LeaseTransition.FINISH
        account = self._accounts.get(lease.holder.user) or Account(
            user=lease.holder.user, queue=lease.queue
        )
        ended = advance(lease, step, now)
        self._accounts[account.user] = charged(
            account, ended, self._policy.half_life_seconds
        )


class LeaseSimulation(SessionPolicy):
    """A lease from the opening of a session to its end, or until it has been idle for
    too long.

    Args:
        pool: the machines.
        costs: what it takes to load again what a reclaimed lease has lost.
        idle: when idle leases are reclaimed; None for never.
    """

    def __init__(self, pool: HostPool, costs: Costs, idle: IdlePolicy | None) -> None:
        self.pool = pool
        self.costs = costs
        self.broker = SimulatedBroker(idle)
        self.uses_memory = idle is not None
        self._by_host: dict[str, dict[Notebook, None]] = {
            host: {} for host in pool.hosts
        }

    def opened(self, notebook: Notebook, now: float) -> None:
        self._submit(notebook, now)

    def submitted(self, notebook: Notebook, now: float) -> None:
        if notebook.lease is not None:
            self._run(notebook, now, now)
        elif notebook.request is None:
            self._submit(notebook, now)

    def finished(self, notebook: Notebook, now: float) -> None:
        self._record_activity(notebook, now)

    def closed(self, notebook: Notebook, now: float) -> None:
        self.broker.withdraw(notebook)
        host = notebook.host
        if notebook.lease is not None:
            self._end(notebook, LeaseTransition.RELEASE, now)
            if self.broker.waiting:
                self._serve(host, now)

    # -- requests ----------------------------------------------------------------------

    def _submit(self, notebook: Notebook, now: float) -> None:
        self.broker.submit(notebook, whole_gpus(notebook.session.gpus), now)
        host = self.pool.best_host(notebook.session.gpus)
        if host is not None:
            self._serve(host, now)

    def _serve(self, host: str, now: float) -> None:
        inventory = self.pool.inventories[host]
        for notebook in self._by_host[host]:
            if notebook.is_running:
                self._record_activity(notebook, now)
        holders = {
            notebook.lease.id: notebook
            for notebook in self._by_host[host]
            if notebook.lease is not None
        }
        live = [holder.lease for holder in holders.values() if holder.lease is not None]
        most = len(inventory.devices)
        for action in self.broker.plan_cycle(inventory, live, now, most=most):
            # Leases that end in the same plan come before it, and free its GPUs.
            if isinstance(action, Grant):
                self._granted(self.broker.grant(action, now), host, now)
            elif isinstance(action, (End, Notify, WithdrawNotice)):
                self._change(holders[action.lease_id], action, now)

    def _granted(self, notebook: Notebook, host: str, now: float) -> None:
        notebook.host = host
        self._by_host[host][notebook] = None
        self.pool.take(notebook.slices)
        self.meter.hold(len(notebook.slices), now)
        self._watch_idle(notebook, now)
        if notebook.is_waiting:
            # What a reclaimed lease had on its GPUs must be loaded again.
            reload = (
                self.costs.load(notebook.state_bytes) if notebook.has_state else 0.0
            )
            self.meter.resumes += notebook.has_state
            self._run(notebook, now, now + reload)

    def _run(self, notebook: Notebook, now: float, at: float) -> None:
        self._record_activity(notebook, now)
        self.begin(notebook, now, at)

    # -- idleness ----------------------------------------------------------------------

    def _record_activity(self, notebook: Notebook, now: float) -> None:
        """The lease is in use; as in the ledger, that withdraws a notice of idleness."""
        if notebook.lease is not None:
            notebook.lease = replace(notebook.lease, active_at=now, notice=None)

    def _watch_idle(self, notebook: Notebook, now: float) -> None:
        if self.broker.queue.idle is not None and not notebook.is_watched:
            notebook.is_watched = True
            self.events.at(
                now + self.broker.queue.idle.notice_seconds + _LATER,
                self._check_idle,
                notebook,
            )

    def _check_idle(self, notebook: Notebook, now: float) -> None:
        """Serve the host of a lease that is idle, and decide when to check again."""
        if notebook.is_running:
            self._record_activity(notebook, now)
        lease = notebook.lease
        if lease is not None and self._is_idle(lease, now):
            self._serve(notebook.host, now)
        self._schedule_idle_check(notebook, now)

    def _is_idle(self, lease: Lease, now: float) -> bool:
        has_notice = lease.notice is not None
        return (
            has_notice or idle_stage(lease, self.broker.queue, now) is IdleStage.NOTICED
        )

    def _schedule_idle_check(self, notebook: Notebook, now: float) -> None:
        lease = notebook.lease
        idle = self.broker.queue.idle
        notebook.is_watched = False
        if lease is None or lease.state is LeaseState.SUSPENDED:
            return
        notebook.is_watched = True
        if idle is None:
            return
        if lease.notice is not None:
            due = lease.notice.ends_at
        else:
            used_at = lease.granted_at if lease.active_at is None else lease.active_at
            due = used_at + idle.notice_seconds
        self.events.at(max(now, due) + _LATER, self._check_idle, notebook)

    def _change(
        self, notebook: Notebook, action: End | Notify | WithdrawNotice, now: float
    ) -> None:
        assert notebook.lease is not None
        if isinstance(action, End):
            self._end(notebook, LeaseTransition.RECLAIM, now)
        else:
            notice = action.notice if isinstance(action, Notify) else None
            notebook.lease = replace(notebook.lease, notice=notice)

    def _end(self, notebook: Notebook, step: LeaseTransition, now: float) -> None:
        self.broker.end(notebook, step, now)
        del self._by_host[notebook.host][notebook]
        self.pool.give(notebook.slices)
        self.meter.hold(-len(notebook.slices), now)
        notebook.slices = ()
        notebook.host = ""


class ReservationPolicy(LeaseSimulation):
    """A session holds its GPUs from its opening to its end; or, as a variant, until it
    has been idle for too long.
    """

    name = "reservation"


class ReclaimPolicy(LeaseSimulation):
    """A session holds its GPUs until it ends or its idle lease is reclaimed with
    notice.
    """

    name = "reclaim"
