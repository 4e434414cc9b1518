"""Who of the waiting is served next.

Ten thousand requests wait in few shapes: those of one user in one queue for the same
thing form a `RequestGroup`, and only
the first of each group is looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec

from .fair_share import FairShare

Shape = tuple[Spec, str, float | None, bool]


@dataclass(eq=False, slots=True)
class RequestGroup:
    """Waiting requests that differ only in when they came; the first of them is `head`.

    Attributes:
        queue, user: whose.
        priority: theirs.
        shape: what decides where they fit: spec, host, how long, preemptible.
        requests: in the order they came.
        impatient: those of them that will not wait for ever.
        served: how many of them have been dealt with.
        why: what keeps those that were looked at from being granted.
        goes_first: room was made for it: it is served before all others.
    """

    queue: str
    user: str
    priority: int
    shape: Shape
    requests: list[Request] = field(default_factory=list)
    impatient: list[Request] = field(default_factory=list)
    served: int = 0
    why: str = ""
    goes_first: bool = False

    @property
    def head(self) -> Request:
        return self.requests[self.served]

    @property
    def rest(self) -> list[Request]:
        """Those not dealt with yet."""
        return self.requests[self.served :]

    @property
    def is_done(self) -> bool:
        return self.served >= len(self.requests)

    @property
    def rank(self) -> tuple[int, float, str]:
        head = self.head
        return -self.priority, head.submitted_at, head.id


def group_requests(requests: Iterable[Request]) -> list[RequestGroup]:
    """Requests, in the order they came, as groups."""
    groups: dict[object, RequestGroup] = {}
    for request in requests:
        kind = request.kind
        group = groups.get(kind)
        if group is None:
            shape = (
                request.spec,
                request.holder.host,
                request.lease_seconds,
                request.preemptible,
            )
            group = groups[kind] = RequestGroup(
                request.queue, request.holder.user, request.priority, shape
            )
        group.requests.append(request)
        if request.patience_seconds is not None:
            group.impatient.append(request)
    return list(groups.values())


class QueueOrder:
    """The groups, next served first.

    Who has waited longer than `Policy.age_seconds` goes first, whoever it is: nobody
    waits for ever. Then the queues in the order of their rank; in a queue by priority,
    then the user who has had least, then who came first.

    Args:
        groups: the waiting.
        standing: what queues and users have; its changes are followed.
    """

    def __init__(self, groups: Iterable[RequestGroup], standing: FairShare) -> None:
        self._standing = standing
        self._aged_before = standing.now - standing.policy.age_seconds
        self._lines: dict[tuple[str, str], list[RequestGroup]] = {}
        self._aged: list[tuple[bool, float, str, RequestGroup]] = []
        for group in groups:
            self._lines.setdefault((group.queue, group.user), []).append(group)
            self._push_aged(group)
        heapq.heapify(self._aged)
        self._heaps: dict[
            str, list[tuple[int, float, float, str, tuple[str, str]]]
        ] = {}
        for key in self._lines:
            self._push_line(key)

    def pick(self) -> RequestGroup | None:
        """The group to be served next; None when nobody is left. Say `advance` or
        `drop` before the next pick.
        """
        while self._aged:
            group = heapq.heappop(self._aged)[-1]
            if not group.is_done:
                return group
        while self._heaps:
            queue = min(
                self._heaps, key=lambda name: (self._standing.queue_rank(name), name)
            )
            group_or_none = self._pick_of(queue)
            if group_or_none is not None:
                return group_or_none
            del self._heaps[queue]
        return None

    def advance(self, group: RequestGroup) -> None:
        """The head of a group has been dealt with."""
        group.served += 1
        if not group.is_done:
            self._push_aged(group)

    def drop(self, group: RequestGroup) -> None:
        """Nobody else of a group need be looked at."""
        group.served = len(group.requests)

    def _push_aged(self, group: RequestGroup) -> None:
        head = group.head
        if group.goes_first or head.submitted_at <= self._aged_before:
            heapq.heappush(
                self._aged, (not group.goes_first, head.submitted_at, head.id, group)
            )

    def _pick_of(self, queue: str) -> RequestGroup | None:
        heap = self._heaps[queue]
        while heap:
            rank = heap[0]
            best = self._best(rank[-1])
            if best is None:
                heapq.heappop(heap)
                continue
            now = self._rank(rank[-1], best)
            if now == rank:
                return best
            heapq.heapreplace(heap, now)
        return None

    def _push_line(self, key: tuple[str, str]) -> None:
        best = self._best(key)
        if best is not None:
            heapq.heappush(self._heaps.setdefault(key[0], []), self._rank(key, best))

    def _best(self, key: tuple[str, str]) -> RequestGroup | None:
        line = [group for group in self._lines[key] if not group.is_done]
        self._lines[key] = line
        return min(line, key=lambda group: group.rank) if line else None

    def _rank(
        self, key: tuple[str, str], best: RequestGroup
    ) -> tuple[int, float, float, str, tuple[str, str]]:
        return (
            -best.priority,
            self._standing.user_rank(*key),
            best.head.submitted_at,
            best.head.id,
            key,
        )


def ordered(groups: Iterable[RequestGroup], standing: FairShare) -> Iterator[Request]:
    """All the waiting in the order in which they are served, were they served one after
    the other.
    """
    order = QueueOrder(groups, standing)
    while (group := order.pick()) is not None:
        request = group.head
        order.advance(group)
        yield request
