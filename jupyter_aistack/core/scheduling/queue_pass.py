"""The pass over the queue: which request is granted what, for which capacity is freed,
and for which it is held.

In the order of :mod:`.queue_order`, each request is granted if it fits. For the first
that does not, capacity is held where it can start earliest, and those behind it may be
granted only if they are done by then or use other capacity: EASY backfilling (Lifka,
JSSPP 1995), once for each kind of device. A request with higher priority than the
holders of preemptible leases has them preempted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Action, Reject, Snapshot
from jupyter_aistack.core.model.policy import GpuSharing
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.core.suspend.transfers import TransferPlan
from jupyter_aistack.exceptions import AcquireTimeout, QuotaExceeded

from .capacity_holds import BACKFILL_SECONDS, head_kind
from .demand_value import demand_value
from .freeing import CapacityFreeing
from .grants import grant, offer
from .lease_ends import HOLDER_EXITED
from .pass_state import PassState, size_of
from .queue_order import QueueOrder, RequestGroup, preempted_for, promised_first
from .start_times import ReleaseTimes

OUTRANKED = "requests with higher priority are ahead"


def serve_queue(
    snapshot: Snapshot,
    held: Sequence[Lease],
    now: float,
    *,
    ttl_seconds: float,
    cache: PlacementCache,
    transfers: TransferPlan | None = None,
) -> list[Action]:
    """What happens to the waiting at `now`, given the leases that stay.

    Args:
        snapshot: what there is.
        held: the leases that stay.
        ttl_seconds: how long a lease lives unless renewed.
        cache: what is known of the devices from earlier plans.
        transfers: what has begun to move, and which leases may be suspended for others;
            None where none may be.
    """
    if not snapshot.requests:
        return []
    facts = cache.facts(snapshot.inventory)
    state = PassState(snapshot, held, now, facts=facts, transfers=transfers)
    return QueuePass(state, ttl_seconds=ttl_seconds).run()


class QueuePass:
    """Goes along the queue until all that can be decided is.

    Args:
        state: what there is, and what comes of it.
        ttl_seconds: how long a lease lives unless renewed.
    """

    def __init__(self, state: PassState, *, ttl_seconds: float) -> None:
        self._state = state
        self._ttl_seconds = ttl_seconds
        self._freeing = CapacityFreeing(state)
        self._full: dict[tuple[object, ...], str] = {}
        self._heads: set[tuple[str, SliceKind]] = set()

    def run(self) -> list[Action]:
        """All actions.

        A request that was granted falls back behind others, for a rejected request no
        capacity is held, and a request for which leases were preempted is served first:
        each lets others be granted in the next pass. So passes are made until a pass
        decides nothing, and the following plan has nothing left to do.
        """
        state = self._state
        waiting = self._without_dead(
            sorted(state.snapshot.requests, key=attrgetter("arrival"))
        )
        while True:
            groups = self._groups(waiting)
            before = len(state.actions)
            if groups and state.capacity.value is None:
                state.capacity.value = demand_value(
                    state.capacity, state.held, _counts_by_spec(groups)
                )
            self._serve_all(groups)
            self._reject_impatient(groups)
            if len(state.actions) == before:
                return state.actions
            waiting = [each for each in waiting if each.id not in state.decided]
            self._start_pass()

    def _start_pass(self) -> None:
        # Freed capacity is forgotten before holds are computed from what is free.
        self._freeing.start_pass()
        self._state.reset_holds()
        self._full = {}
        self._heads = set()

    def _without_dead(self, waiting: list[Request]) -> list[Request]:
        """The requests whose holders live; those of others are rejected."""
        dead = self._state.snapshot.dead
        if not dead:
            return waiting
        for request in waiting:
            if request.id in dead:
                reject = Reject(request_id=request.id, reason=HOLDER_EXITED)
                self._state.actions.append(reject)
        return [request for request in waiting if request.id not in dead]

    def _groups(self, waiting: Sequence[Request]) -> list[RequestGroup]:
        """The waiting as groups, those for which capacity is freed before all others."""
        before = preempted_for(self._state.snapshot.leases)
        return promised_first(waiting, before | self._freeing.promised)

    def _serve_all(self, groups: Sequence[RequestGroup]) -> None:
        order = QueueOrder(groups, self._state.fair_share)
        while (group := order.pick()) is not None:
            group.why = self._full.get(self._shape(group), "")
            # Its queue may never allow it, where that of others with its shape would.
            is_over = self._reject_never(group) or group.why
            if is_over or not self._serve(group):
                order.drop(group)
            else:
                order.advance(group)

    def _reject_never(self, group: RequestGroup) -> bool:
        """Reject a group that could never be granted. Returns whether it was."""
        when_idle = self._state.when_idle(group.head)
        if isinstance(when_idle, PlacementFailure) and when_idle.never:
            self._reject(group, when_idle.reason, when_idle.never)
            return True
        size, slices = size_of(when_idle)
        never = self._state.fair_share.why_never(group.head, size, slices)
        if never:
            self._reject(group, never, QuotaExceeded.__name__)
        return bool(never)

    def _serve(self, group: RequestGroup) -> bool:
        """Deal with the head of a group. Returns whether the rest of it is worth
        trying.
        """
        request = group.head
        fair_share = self._state.fair_share
        size, slices = size_of(self._state.when_idle(request))
        limit = fair_share.check_limits(request, size, slices)
        if limit is not None:
            group.why = limit.reason
            self._freeing.suspend_own(request, size)
            return False

        offered = offer(self._state, request)
        if not isinstance(offered, PlacementFailure):
            grant(self._state, request, offered, ttl_seconds=self._ttl_seconds)
            self._freeing.allocate(offered.slices, request.holder.user)
            return True

        group.why = offered.reason
        if self._freeing.find_place(request, size):
            fair_share.promise(request.queue, request.holder.user, size, slices)
            return True

        self._hold_for_head(request)
        self._full[self._shape(group)] = offered.reason
        return False

    def _shape(self, group: RequestGroup) -> tuple[object, ...]:
        """Whose answer is the same: a shape that did not fit fits no other request in
        this pass.

        Users differ where a GPU is one user's at a time; queues where they have
        reservations, in whose leases they may preempt, and in what may be suspended.
        """
        may_suspend = self._state.transfers is not None
        is_reserved = group.queue in self._state.reserved_queues
        differs = may_suspend or is_reserved or self._freeing.has_preemptible
        sharing = self._state.snapshot.policy.gpu_sharing
        return (
            group.shape,
            group.user if sharing is GpuSharing.SAME_USER else "",
            group.queue if differs else "",
            group.head.holder.kind if may_suspend else "",
        )

    def _hold_for_head(self, request: Request) -> None:
        """For the first of its kind that does not fit, capacity is held where it can
        start earliest.
        """
        when_idle = self._state.when_idle(request)
        if isinstance(when_idle, PlacementFailure):
            # It waits for a device that does not answer, or for foreign processes:
            # others need not wait with it.
            return
        head = head_kind(request, when_idle)
        if head in self._heads:
            return
        self._heads.add(head)
        start = self._state.start(request, ReleaseTimes(self._state.held))
        at = start.at
        if math.isinf(at):
            at = self._state.now + BACKFILL_SECONDS
        self._state.holds.append(self._state.hold_of(request, start.shares, at))

    def _reject(self, group: RequestGroup, reason: str, code: str) -> None:
        for request in group.rest:
            reject = Reject(request_id=request.id, reason=reason, code=code)
            self._state.actions.append(reject)
            self._state.decided.add(request.id)

    def _reject_impatient(self, groups: Sequence[RequestGroup]) -> None:
        """Reject those that were to wait no longer and could not be granted."""
        for group in groups:
            for request in group.impatient:
                if self._is_out_of_time(request):
                    reject = Reject(
                        request_id=request.id,
                        reason=f"timed out waiting: {group.why or OUTRANKED}",
                        code=AcquireTimeout.__name__,
                    )
                    self._state.actions.append(reject)
                    self._state.decided.add(request.id)

    def _is_out_of_time(self, request: Request) -> bool:
        patience = request.patience_seconds
        if patience is None or request.id in self._state.decided:
            return False
        return self._state.now - request.submitted_at >= patience


def _counts_by_spec(groups: Sequence[RequestGroup]) -> Counter[Spec]:
    counts: Counter[Spec] = Counter()
    for group in groups:
        counts[group.head.spec] += len(group.requests)
    return counts
