"""Requests: submitted, granted or queued, and cancelled."""

from __future__ import annotations

import uuid
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.ceiling import parse_ceiling
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Holder, Request, RequestState
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.scheduling.admission import admit, queue_for
from jupyter_aistack.core.scheduling.forecast import QueuedForecast, forecast
from jupyter_aistack.exceptions import AIStackError, Refused, error_from_dict

from .cycle import SchedulingCycle
from .host_state import HostState
from .withdrawals import Withdrawals


class Requests:
    """The requests of this host.

    Args:
        host_state: where they are written down.
        cycle: decides about them.
        withdrawals: takes back what its asker is not told of.
    """

    def __init__(
        self,
        host_state: HostState,
        cycle: SchedulingCycle,
        withdrawals: Withdrawals,
    ) -> None:
        self._host_state = host_state
        self._cycle = cycle
        self._withdrawals = withdrawals
        self._admitted_to: Inventory | None = None
        self._admitted: set[tuple[Spec, str, Fraction | None]] = set()

    # -- reading -----------------------------------------------------------------------

    def forecasts(self, limit: int = 100) -> tuple[QueuedForecast, ...]:
        """The waiting requests of this host, first served first: why they wait and how
        long, for the first `limit`.
        """
        snapshot = self._cycle.snapshot()
        return forecast(
            snapshot,
            self._host_state.now(),
            limit=limit,
            cache=self._cycle.placement_cache,
        )

    def queued(self) -> tuple[Request, ...]:
        """The waiting requests of this host, first served first, with the reason that
        names no user.
        """
        return tuple(
            replace(waiting.request, reason=waiting.public_reason)
            for waiting in self.forecasts()
        )

    # -- asking ------------------------------------------------------------------------

    def acquire(
        self,
        spec: str | Spec,
        holder: Holder,
        *,
        queue: str,
        up_to: str = "",
        groups: frozenset[str],
    ) -> None:
        """Submit a request unless the holder holds or waits for something already, so
        that a launch that is tried again asks for nothing twice.

        Raises:
            AIStackError: as `submit`.
        """
        state = self._host_state.read()
        leases = (
            lease for lease in state.leases if lease.state is not LeaseState.RELEASING
        )
        items: list[Lease | Request] = [*leases, *state.requests]
        if not any(is_held_by(item, holder) for item in items):
            self.submit(spec, holder, queue=queue, up_to=up_to, groups=groups)

    def submit(
        self,
        spec: str | Spec,
        holder: Holder,
        *,
        queue: str = "",
        priority: int = 0,
        lease_seconds: float | None = None,
        patience_seconds: float | None = None,
        preemptible: bool = False,
        up_to: str = "",
        groups: frozenset[str] = frozenset(),
        idempotency_key: str = "",
    ) -> Request:
        """Ask for slices and try to grant them at once.

        Whatever fails, nothing is left that the asker does not know of: what was written
        is taken back, once the ledger answers again.

        Args:
            up_to: its ceiling, such as ``1/1``; empty for none.
            idempotency_key: the asker's own name for the request: asked again under the
                same name, it is the same request.
            queue: where to wait; empty for the user's own queue.
            groups: the Unix groups of the holder's user, which may open queues.

        Returns:
            The request: granted, queued, or cancelled by another process meanwhile.

        Raises:
            InvalidRequest: the spec, the ceiling or the queue cannot be understood.
            UnknownProfile, Unsatisfiable: no state of this host could ever hold it.
            QuotaExceeded: the limits of the queue or of the user do not allow it; says
                which, and when that ends.
            QueueClosed: the queue takes no requests, or none of this user.
            AcquireTimeout: it was not to wait, and would have to.
            Refused: its process has ended meanwhile, or it has been taken back.
        """
        try:
            parsed = parse_spec(spec) if isinstance(spec, str) else spec
            target = queue_for(self._host_state.policy, queue, holder.user, groups)
            request = Request(
                id=f"r-{uuid.uuid4().hex[:12]}",
                spec=parsed,
                holder=self._host_state.identified(holder),
                queue=target.name,
                priority=priority,
                lease_seconds=lease_seconds,
                patience_seconds=patience_seconds,
                preemptible=preemptible,
                up_to=parse_ceiling(up_to, parsed),
                submitted_at=self._host_state.now(),
                idempotency_key=idempotency_key,
            )
            self._admit(request)
        except AIStackError:
            # An earlier call may have been granted what is refused now.
            known = self._kept(holder.user, idempotency_key)
            if known is None:
                raise
            return _answer(known)
        return _answer(self._decide_once(request))

    def _decide_once(self, request: Request) -> Request:
        """As `_decide`, where an earlier request of the same key may be taken back just
        now: then this one is decided.
        """
        decided = self._decide(request)
        if decided.id == request.id:
            return decided
        kept = self._kept(request.holder.user, request.idempotency_key)
        return kept or self._decide(request)

    def _decide(self, request: Request) -> Request:
        """Write a request down, and what a cycle makes of it at once; an earlier request
        of its key stays as it is.

        Raises:
            Refused: its process has ended meanwhile, or it has been taken back.
        """
        self._host_state.show_presence()
        try:
            decided = self._cycle.submit(request)
            if decided.id == request.id:
                self._refuse_withdrawn(decided)
        except BaseException:
            # The caller does not know its id, so it could neither cancel the request
            # nor release the lease it may have become.
            self._withdrawals.withdraw(request.id)
            raise
        return decided

    def _kept(self, user: str, key: str) -> Request | None:
        """What has become of the request of a key, if there is one. Its asker knows of
        it now: nothing takes it back any more.
        """
        if not key:
            return None
        ledger = self._host_state.ledger
        known = ledger.request_of_key(user, key)
        if known is None:
            return None
        self._withdrawals.keep(known.id)
        return ledger.request_of_key(user, key)

    def _refuse_withdrawn(self, request: Request) -> None:
        """Raise `Refused` where its asker has taken it back already."""
        user = request.holder.user
        key = request.idempotency_key
        if key and self._withdrawals.is_withdrawn(user, key):
            raise Refused(f"the request for {request.spec} was withdrawn")

    def adopt(self, request: Request) -> Request:
        """A request of somebody who asks here now. While it waits, it is for what the
        launcher of this process may use: a server that was started again may have been
        shown other devices than the server that it was submitted to.
        """
        if request.state is not RequestState.QUEUED:
            return request
        self._host_state.inventory()  # that is when allowances are read
        allowance = self._host_state.devices.allowance
        holder = replace(request.holder, allowance=allowance)
        if holder == request.holder:
            return request
        return self._host_state.ledger.rebind(
            request.id, self._host_state.now(), holder
        )

    def cancel(self, request_id: str) -> Request:
        """Withdraw a waiting request; a decided request is returned as it stands."""
        request = self._host_state.ledger.cancel(
            request_id, self._host_state.now(), "withdrawn"
        )
        self._cycle.follow_up()
        return request

    def _admit(self, request: Request) -> None:
        """Refuse what could never be held, before anything is written.

        The ledger need only be read where users have limits; elsewhere an answer holds
        as long as the inventory is the same.
        """
        policy = self._host_state.policy
        cache = self._cycle.placement_cache
        if policy.limits:
            snapshot = self._cycle.snapshot()
            admit(request, snapshot, self._host_state.now(), cache=cache)
            return

        inventory = self._host_state.inventory()
        if self._admitted_to is not inventory:
            self._admitted_to = inventory
            self._admitted = set()
        key = (request.spec, request.queue, request.up_to)
        if key in self._admitted:
            return
        idle = Snapshot(inventory=inventory, policy=policy)
        admit(request, idle, self._host_state.now(), cache=cache)
        self._admitted.add(key)


def is_held_by(item: Lease | Request, holder: Holder) -> bool:
    """Whether a lease or a request is a holder's own, and not its worker's."""
    return item.holder.is_same(holder)


def _answer(decided: Request) -> Request:
    """What its asker is told of a request; raises what its rejection means."""
    if decided.state is RequestState.REJECTED:
        raise _rejection(decided)
    return decided


def _rejection(request: Request) -> AIStackError:
    """The error that a rejected request means for its caller."""
    facts = {"request_id": request.id}
    return error_from_dict(
        {"code": request.code, "message": request.reason, "facts": facts}
    )
