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
from jupyter_aistack.core.scheduling.idle import NOTICED, stage

from .costs import Costs
from .hosts import HostPool, whole
from .replay import Notebook, SessionPolicy

_LATER = 1e-6
"""Looked at this much after it is due, so that rounding does not make it a moment too
early.
"""


class SimulatedBroker:
    """Where sessions ask for leases: one line, from which each host serves itself by
    the broker's own cycle.

    Args:
        idle: when unused leases are taken back.
    """

    def __init__(self, idle: IdlePolicy | None) -> None:
        self.queue = Queue(name=DEFAULT_QUEUE, idle=idle)
        self.waiting: dict[str, Notebook] = {}
        self._policy = Policy(queues=(self.queue,))
        self._accounts: dict[str, Account] = {}
        self._tokens = 0

    def ask(self, notebook: Notebook, spec: Spec, now: float) -> None:
        """A session joins the line."""
        name = f"session-{notebook.session.number}"
        self._tokens += 1
        holder = Holder(kind=HolderKind.KERNEL, id=name, user=name, host="")
        notebook.request = Request(
            id=f"r-{self._tokens:07d}", spec=spec, holder=holder, submitted_at=now
        )
        self.waiting[notebook.request.id] = notebook

    def withdraw(self, notebook: Notebook) -> None:
        """A session leaves the line, if it is in it."""
        if notebook.request is not None:
            self.waiting.pop(notebook.request.id, None)
            notebook.request = None

    def decide(
        self, inventory: Inventory, leases: Iterable[Lease], now: float, *, most: int
    ) -> tuple[Action, ...]:
        """What the broker of such a host would do now; requests for more than `most`
        GPUs go elsewhere.
        """
        requests = tuple(
            n.request
            for n in self.waiting.values()
            if n.request and n.session.gpus <= most
        )
        snapshot = Snapshot(
            inventory=inventory,
            leases=tuple(leases),
            requests=requests,
            policy=self._policy,
            accounts=tuple(
                self._accounts[r.holder.user]
                for r in requests
                if r.holder.user in self._accounts
            ),
        )
        return plan(snapshot, now, ttl_seconds=math.inf).actions

    def grant(self, grant: Grant, now: float) -> Notebook:
        """A session leaves the line with a lease, which is bound and in use at once."""
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
        floor: the machines.
        costs: what it takes to load again what a lease taken back has lost.
        idle: when idle leases are taken back; None for never.
    """

    def __init__(self, floor: HostPool, costs: Costs, idle: IdlePolicy | None) -> None:
        self.floor = floor
        self.costs = costs
        self.desk = SimulatedBroker(idle)
        self.uses_memory = idle is not None
        self._there: dict[str, dict[Notebook, None]] = {
            host: {} for host in floor.hosts
        }

    def opened(self, notebook: Notebook, now: float) -> None:
        self._ask(notebook, now)

    def submitted(self, notebook: Notebook, now: float) -> None:
        if notebook.lease is not None:
            self._run(notebook, now, now)
        elif notebook.request is None:
            self._ask(notebook, now)

    def finished(self, notebook: Notebook, now: float) -> None:
        self._touch(notebook, now)

    def closed(self, notebook: Notebook, now: float) -> None:
        self.desk.withdraw(notebook)
        host = notebook.host
        if notebook.lease is not None:
            self._end(notebook, LeaseTransition.RELEASE, now)
            if self.desk.waiting:
                self._serve(host, now)

    # -- asking ------------------------------------------------------------------------

    def _ask(self, notebook: Notebook, now: float) -> None:
        self.desk.ask(notebook, whole(notebook.session.gpus), now)
        host = self.floor.best_host(notebook.session.gpus)
        if host is not None:
            self._serve(host, now)

    def _serve(self, host: str, now: float) -> None:
        inventory = self.floor.inventories[host]
        for notebook in self._there[host]:
            if notebook.is_running:
                self._touch(notebook, now)
        leases = {n.lease.id: n for n in self._there[host] if n.lease is not None}
        live = [n.lease for n in leases.values() if n.lease is not None]
        for action in self.desk.decide(
            inventory, live, now, most=len(inventory.devices)
        ):
            if isinstance(
                action, Grant
            ):  # those that end in the same plan come before, and make room for it
                self._granted(self.desk.grant(action, now), host, now)
            elif isinstance(action, (End, Notify, WithdrawNotice)):
                self._change(leases[action.lease_id], action, now)

    def _granted(self, notebook: Notebook, host: str, now: float) -> None:
        notebook.host = host
        self._there[host][notebook] = None
        self.floor.take(notebook.slices)
        self.meter.hold(len(notebook.slices), now)
        self._watch(notebook, now)
        if notebook.is_waiting:
            lost = self.costs.load(notebook.state_bytes) if notebook.has_state else 0.0
            self.meter.resumes += notebook.has_state
            self._run(notebook, now, now + lost)

    def _run(self, notebook: Notebook, now: float, at: float) -> None:
        self._touch(notebook, now)
        self.begin(notebook, now, at)

    # -- idleness ----------------------------------------------------------------------

    def _touch(self, notebook: Notebook, now: float) -> None:
        """It is in use; as in the ledger, that takes back the word that it is idle."""
        if notebook.lease is not None:
            notebook.lease = replace(notebook.lease, active_at=now, notice=None)

    def _watch(self, notebook: Notebook, now: float) -> None:
        if self.desk.queue.idle is not None and not notebook.is_watched:
            notebook.is_watched = True
            self.agenda.at(
                now + self.desk.queue.idle.notice_seconds + _LATER, self._look, notebook
            )

    def _look(self, notebook: Notebook, now: float) -> None:
        """Whether a lease is idle, and when to look again."""
        if notebook.is_running:
            self._touch(notebook, now)
        lease = notebook.lease
        if lease is not None and (
            lease.notice is not None or stage(lease, self.desk.queue, now) == NOTICED
        ):
            self._serve(notebook.host, now)
        self._look_again(notebook, now)

    def _look_again(self, notebook: Notebook, now: float) -> None:
        lease = notebook.lease
        idle = self.desk.queue.idle
        notebook.is_watched = (
            lease is not None and lease.state is not LeaseState.SUSPENDED
        )
        if lease is not None and idle is not None and notebook.is_watched:
            used_at = lease.granted_at if lease.active_at is None else lease.active_at
            due = (
                lease.notice.ends_at
                if lease.notice is not None
                else used_at + idle.notice_seconds
            )
            self.agenda.at(max(now, due) + _LATER, self._look, notebook)

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
        self.desk.end(notebook, step, now)
        del self._there[notebook.host][notebook]
        self.floor.give(notebook.slices)
        self.meter.hold(-len(notebook.slices), now)
        notebook.slices = ()
        notebook.host = ""


class Reservation(LeaseSimulation):
    """A session holds its GPUs from its opening to its end; or, as a variant, until it
    has been idle for too long.
    """

    name = "reservation"


class ReclaimPolicy(LeaseSimulation):
    """A session holds its GPUs until it ends or its lease, idle, is taken back with
    notice.
    """

    name = "reclaim"
