"""Which of the waiting requests is served next.

Ten thousand requests wait in few shapes: those of one user in one queue for the same
thing form a `RequestGroup`, and only the first of each group is tried.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from jupyter_aistack.core.model.lease import Lease, NoticeKind
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec

from .fair_share import FairShare

Shape = tuple[Spec, str, float | None, bool]
"""What decides where a request fits: spec, host, how long, preemptible."""
Line = tuple[str, str]
"""The requests of one user in one queue."""
Rank = tuple[int, float, float, str, Line]


@dataclass(eq=False, slots=True)
class RequestGroup:
    """Waiting requests that differ only in when they came; the first of them is `head`.

    Attributes:
        queue, user: whose.
        priority: theirs.
        shape: what decides where they fit.
        requests: in the order they came.
        impatient: those of them that will not wait for ever.
        served: how many of them have been dealt with.
        why: what keeps those that were tried from being granted.
        is_promised: capacity is being freed for it: it is served before all others.
    """

    queue: str
    user: str
    priority: int
    shape: Shape
    requests: list[Request] = field(default_factory=list)
    impatient: list[Request] = field(default_factory=list)
    served: int = 0
    why: str = ""
    is_promised: bool = False

    @property
    def head(self) -> Request:
        """The first request that has not been dealt with."""
        return self.requests[self.served]

    @property
    def rest(self) -> list[Request]:
        """The requests that have not been dealt with."""
        return self.requests[self.served :]

    @property
    def is_done(self) -> bool:
        """Whether all of it has been dealt with."""
        return self.served >= len(self.requests)

    @property
    def rank(self) -> tuple[int, float, str]:
        """Groups of lower rank are served first among those of their user."""
        head = self.head
        return -self.priority, head.submitted_at, head.id


def group_requests(requests: Iterable[Request]) -> list[RequestGroup]:
    """Requests, in the order they came, as groups."""
    groups: dict[object, RequestGroup] = {}
    # Run over the whole queue in each cycle: nothing here may cost more than a look-up.
    for request in requests:
        kind = request.kind
        group = groups.get(kind)
        if group is None:
            group = _new_group(request)
            groups[kind] = group
        group.requests.append(request)
        if request.patience_seconds is not None:
            group.impatient.append(request)
    return list(groups.values())


def promised_first(
    requests: Sequence[Request], promised: Collection[str]
) -> list[RequestGroup]:
    """Requests as groups; those for which capacity is freed are each on their own and
    before all others.
    """
    if not promised:
        return group_requests(requests)
    first = [request for request in requests if request.id in promised]
    others = [request for request in requests if request.id not in promised]
    groups = [group for request in first for group in group_requests([request])]
    for group in groups:
        group.is_promised = True
    return [*groups, *group_requests(others)]


def preempted_for(leases: Iterable[Lease]) -> frozenset[str]:
    """The requests for which leases have been preempted: what is freed is theirs,
    whatever came since.
    """
    notices = [lease.notice for lease in leases]
    return frozenset(
        notice.request_id
        for notice in notices
        if notice is not None and notice.kind is NoticeKind.PREEMPT
    )


def _new_group(request: Request) -> RequestGroup:
    """A group for requests like `request`, without it."""
    shape = (
        request.spec,
        request.holder.host,
        request.lease_seconds,
        request.preemptible,
    )
    return RequestGroup(
        queue=request.queue,
        user=request.holder.user,
        priority=request.priority,
        shape=shape,
    )


class QueueOrder:
    """The groups, next served first.

    A request that has waited longer than `Policy.age_seconds` is served first, whosever
    it is: none waits for ever. Then the queues in the order of their rank; in a queue
    by priority, then the user who has had least, then the request that came first.

    Args:
        groups: the waiting.
        fair_share: what queues and users have; its changes are followed.
    """

    def __init__(self, groups: Iterable[RequestGroup], fair_share: FairShare) -> None:
        self._fair_share = fair_share
        self._aged_before = fair_share.now - fair_share.policy.age_seconds
        self._lines: dict[Line, list[RequestGroup]] = {}
        self._aged: list[tuple[bool, float, str, RequestGroup]] = []
        self._heaps: dict[str, list[Rank]] = {}
        for group in groups:
            self._lines.setdefault((group.queue, group.user), []).append(group)
            self._push_aged(group)
        for line in self._lines:
            self._push_line(line)

    def pick(self) -> RequestGroup | None:
        """The group to be served next; None when none is left. Call `advance` or `drop`
        before the next pick.
        """
        while self._aged:
            group = heapq.heappop(self._aged)[-1]
            if not group.is_done:
                return group
        while self._heaps:
            queue = min(self._heaps, key=self._queue_key)
            best = self._pick_of(queue)
            if best is not None:
                return best
            del self._heaps[queue]
        return None

    def advance(self, group: RequestGroup) -> None:
        """The head of a group has been dealt with."""
        group.served += 1
        if not group.is_done:
            self._push_aged(group)

    def drop(self, group: RequestGroup) -> None:
        """The rest of a group has been dealt with."""
        group.served = len(group.requests)

    def _queue_key(self, queue: str) -> tuple[tuple[float, ...], str]:
        return self._fair_share.queue_rank(queue), queue

    def _push_aged(self, group: RequestGroup) -> None:
        head = group.head
        if group.is_promised or head.submitted_at <= self._aged_before:
            entry = (not group.is_promised, head.submitted_at, head.id, group)
            heapq.heappush(self._aged, entry)

    def _pick_of(self, queue: str) -> RequestGroup | None:
        """The best group of a queue. Ranks only grow, so a stale rank is corrected when
        it comes to the top of the heap.
        """
        heap = self._heaps[queue]
        while heap:
            stale = heap[0]
            line = stale[-1]
            best = self._best(line)
            if best is None:
                heapq.heappop(heap)
                continue
            rank = self._rank(line, best)
            if rank == stale:
                return best
            heapq.heapreplace(heap, rank)
        return None

    def _push_line(self, line: Line) -> None:
        best = self._best(line)
        if best is not None:
            heap = self._heaps.setdefault(line[0], [])
            heapq.heappush(heap, self._rank(line, best))

    def _best(self, line: Line) -> RequestGroup | None:
        waiting = [group for group in self._lines[line] if not group.is_done]
        self._lines[line] = waiting
        if waiting:
            return min(waiting, key=lambda group: group.rank)
        return None

    def _rank(self, line: Line, best: RequestGroup) -> Rank:
        head = best.head
        user_rank = self._fair_share.user_rank(*line)
        return -best.priority, user_rank, head.submitted_at, head.id, line


def ordered(groups: Iterable[RequestGroup], fair_share: FairShare) -> Iterator[Request]:
    """All the waiting in the order in which they are served, were they served one after
    the other.
    """
    order = QueueOrder(groups, fair_share)
    while (group := order.pick()) is not None:
        request = group.head
        order.advance(group)
        yield request
