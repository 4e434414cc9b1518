"""One turn of the broker, as a function: a snapshot in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from ..exceptions import AcquireTimeout, QuotaExceeded, Refused
from .device import Inventory, Slice
from .lease import Lease, LeaseState, Outcome
from .placement import Unplaced, place
from .queues import Queue, in_order
from .request import Request


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Give a waiting request these slices."""

    request: Request
    slices: tuple[Slice, ...]
    expires_at: float
    ends_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """End a live lease with an outcome (expired, abandoned, preempted)."""

    lease_id: str
    token: int
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Turn a waiting request down; `code` names the error it means for the one who asked."""

    request_id: str
    reason: str
    code: str = Refused.__name__


Action = Grant | End | Reject


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a plan is made from, read together.

    Attributes:
        inventory: the host's devices, foreign memory marked.
        leases: its live leases.
        requests: its queued requests.
        queues: all queues.
        version: of the ledger it was read from.
        dead: ids of leases and requests whose holder no longer runs.
    """

    inventory: Inventory
    leases: tuple[Lease, ...] = ()
    requests: tuple[Request, ...] = ()
    queues: tuple[Queue, ...] = ()
    version: int = 0
    dead: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Actions to be applied together, and why the others wait.

    Attributes:
        version: the ledger's version it holds for.
        actions: what to do, in order.
        reasons: request id to the sentence that says why it still waits.
    """

    version: int
    actions: tuple[Action, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.actions and not self.reasons

    def rejections(self) -> tuple[Reject, ...]:
        """The requests it turns down."""
        return tuple(action for action in self.actions if isinstance(action, Reject))

    def ended(self) -> frozenset[str]:
        """Ids of the leases it ends."""
        return frozenset(action.lease_id for action in self.actions if isinstance(action, End))


def plan(snapshot: Snapshot, now: float, *, ttl_seconds: float) -> Plan:
    """What should happen at `now`. Pure: the same snapshot gives the same plan.

    A lease past its time or without a living holder ends. Then the waiting are served in order; one that does not
    fit keeps its place and lets smaller ones pass only onto devices it could not use anyway.
    """
    ended = tuple(_endings(snapshot, now))
    gone = {end.lease_id for end in ended}
    held = [lease for lease in snapshot.leases if lease.is_live and lease.id not in gone]
    decisions = _Decisions(snapshot, held, now, ttl_seconds)
    for request in in_order(snapshot.requests, snapshot.queues):
        decisions.decide(request)
    changed = {i: why for i, why in decisions.reasons.items() if why != decisions.known[i]}
    return Plan(version=snapshot.version, actions=(*ended, *decisions.actions), reasons=changed)


def _endings(snapshot: Snapshot, now: float) -> Iterable[End]:
    for lease in snapshot.leases:
        if lease.is_expired(now):
            yield End(lease_id=lease.id, token=lease.token, outcome=Outcome.EXPIRED, detail="its time was up")
        elif lease.id in snapshot.dead and lease.is_live:
            yield End(lease_id=lease.id, token=lease.token, outcome=Outcome.ABANDONED, detail="its process has ended")


class _Decisions:
    """The state of one walk along the queue."""

    def __init__(self, snapshot: Snapshot, held: list[Lease], now: float, ttl_seconds: float) -> None:
        self.snapshot, self.held, self.now, self.ttl_seconds = snapshot, held, now, ttl_seconds
        self.queues = {queue.name: queue for queue in snapshot.queues}
        self.slices = [piece for lease in held for piece in lease.slices]
        self.charged: dict[str, Fraction] = {}
        for lease in held:
            self._charge(lease.queue, lease.slices)
        self.actions: list[Action] = []
        self.reasons: dict[str, str] = {}
        self.known = {request.id: request.reason for request in snapshot.requests}
        self.reserved: set[str] = set()

    def decide(self, request: Request) -> None:
        if request.id in self.snapshot.dead:
            self.actions.append(Reject(request_id=request.id, reason="its process has ended"))
            return
        answer = place(request.spec, self.snapshot.inventory, self.slices, avoid=frozenset(self.reserved))
        if isinstance(answer, Unplaced):
            self._not_placed(request, answer.reason, never=answer.never)
            if request.id in self.reasons:  # it still waits
                self.reserved |= answer.candidates
            return
        limit, size = self._limit_of(request), sum((s.fraction for s in answer), Fraction())
        if limit is not None and self.charged.get(request.queue, Fraction()) + size > limit:
            why = f"queue {request.queue} may hold {limit} devices at once"
            self._not_placed(request, why, never=QuotaExceeded.__name__ if size > limit else "")
            return
        self._grant(request, answer)

    def _grant(self, request: Request, slices: tuple[Slice, ...]) -> None:
        ends_at = None if request.lease_seconds is None else self.now + request.lease_seconds
        expires_at = self.now + self.ttl_seconds
        self.actions.append(Grant(request=request, slices=slices, expires_at=expires_at, ends_at=ends_at))
        self.slices.extend(slices)
        self._charge(request.queue, slices)

    def _not_placed(self, request: Request, reason: str, *, never: str) -> None:
        waited = self.now - request.submitted_at
        if never:
            self.actions.append(Reject(request_id=request.id, reason=reason, code=never))
        elif request.patience_seconds is not None and waited >= request.patience_seconds:
            late = f"{reason}; it was not to wait any longer"
            self.actions.append(Reject(request_id=request.id, reason=late, code=AcquireTimeout.__name__))
        else:
            self.reasons[request.id] = reason

    def _charge(self, queue: str, slices: Iterable[Slice]) -> None:
        self.charged[queue] = self.charged.get(queue, Fraction()) + sum((s.fraction for s in slices), Fraction())

    def _limit_of(self, request: Request) -> Fraction | None:
        queue = self.queues.get(request.queue)
        return None if queue is None else queue.limit


def grant_to_lease(grant: Grant, lease_id: str, token: int, now: float) -> Lease:
    """The lease a grant becomes when it is written down."""
    request = grant.request
    return Lease(
        id=lease_id,
        token=token,
        request_id=request.id,
        spec=request.spec,
        holder=request.holder,
        slices=grant.slices,
        queue=request.queue,
        state=LeaseState.GRANTED,
        granted_at=now,
        expires_at=grant.expires_at,
        ends_at=grant.ends_at,
        preemptible=request.preemptible,
    )
