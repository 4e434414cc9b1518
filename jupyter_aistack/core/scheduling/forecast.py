"""What those who wait are told: their position, why they wait, and when it is likely to
end.

Nothing of this is written down: it is computed when somebody looks, from the same order
and the same room as a plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Slice, SliceKind
from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_about, format_bytes
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import PlacementFailure
from jupyter_aistack.core.suspend.build import build_suspend_input, start_transfers

from .capacity_holds import ReleaseTimes
from .fair_share import ends_at
from .queue_order import group_requests, ordered
from .queue_pass import QueuePass


@dataclass(frozen=True, kw_only=True)
class QueuedForecast:
    """A request that waits, as its owner should see it.

    Attributes:
        request: the request.
        position: 1 is served next.
        eta_at: when it is likely to be granted, in seconds since the epoch; None when
            nobody can say.
        reason: why it waits, in one sentence; it may name other users.
        public_reason: the same without names of others.
    """

    request: Request
    position: int
    eta_at: float | None
    reason: str
    public_reason: str


def forecast(
    snapshot: Snapshot, now: float, *, limit: int = 100
) -> tuple[QueuedForecast, ...]:
    """The waiting, first served first; those behind the first `limit` are told their
    position and no more.

    An ETA supposes that leases end when they are known to (their time, a notice) and no
    sooner, and that nobody new
    goes before: so it is the latest that can be promised, and there is none where a
        lease in the way has no end.
    """
    waiting = [
        request for request in snapshot.requests if request.id not in snapshot.dead
    ]
    if not waiting:
        return ()
    held = [lease for lease in snapshot.leases if lease.is_live]
    walk = QueuePass(
        snapshot,
        held,
        now,
        ttl_seconds=0.0,
        moves=start_transfers(build_suspend_input(snapshot, held), snapshot, now),
    )
    ends = ReleaseTimes(held)
    found = []
    for position, request in enumerate(
        ordered(group_requests(waiting), walk.standing), 1
    ):
        if position <= limit:
            found.append(_look(request, position, walk, held, ends, now))
        else:
            text = f"{position - 1} requests go first"
            found.append(
                QueuedForecast(
                    request=request,
                    position=position,
                    eta_at=None,
                    reason=text,
                    public_reason=text,
                )
            )
    return tuple(found)


def _look(
    request: Request,
    position: int,
    walk: QueuePass,
    held: Sequence[Lease],
    ends: ReleaseTimes,
    now: float,
) -> QueuedForecast:
    """One request, after those before it have been given their places to come."""
    idle = walk.when_idle(request)
    size, slices = (
        (Fraction(0), 0)
        if isinstance(idle, PlacementFailure)
        else (equivalents(idle), len(idle))
    )
    limit = walk.standing.limit(request, size, slices)
    if limit is not None:
        text = f"{limit.reason}{_expected(limit.frees_at, now)}"
        return QueuedForecast(
            request=request,
            position=position,
            eta_at=limit.frees_at,
            reason=text,
            public_reason=text,
        )
    start, shares = walk.start(request, ends)
    eta = None if math.isinf(start) else start
    named, plain = _why(request, walk, held, shares, eta, now)
    if eta is not None and shares:
        _occupy(request, shares, eta, walk, ends)
    return QueuedForecast(
        request=request,
        position=position,
        eta_at=eta,
        reason=named,
        public_reason=plain,
    )


def _occupy(
    request: Request,
    shares: dict[str, Fraction],
    start: float,
    walk: QueuePass,
    ends: ReleaseTimes,
) -> None:
    """From its start on, those behind it must do without its room; one that has an end
    gives it back then.
    """
    for device_id, share in shares.items():
        walk.room.hold(device_id, share)
    if request.spec.unit is Unit.PROFILE:
        ends.release_to(next(iter(shares)), request.spec.profile, start)
    if request.lease_seconds is not None:
        pieces = tuple(
            walk.room.piece(device_id, share) for device_id, share in shares.items()
        )
        pieces = tuple(replace(piece, profile=request.spec.profile) for piece in pieces)
        ends.add(_lease_to_come(request, pieces, start, start + request.lease_seconds))


def _lease_to_come(
    request: Request, pieces: tuple[Slice, ...], start: float, end: float
) -> Lease:
    return Lease(
        id="",
        token=0,
        request_id=request.id,
        spec=request.spec,
        holder=request.holder,
        slices=pieces,
        granted_at=start,
        expires_at=end,
        ends_at=end,
    )


def _why(
    request: Request,
    walk: QueuePass,
    held: Sequence[Lease],
    shares: dict[str, Fraction],
    eta: float | None,
    now: float,
) -> tuple[str, str]:
    """The sentence with names, and without."""
    wish = f"needs {wanted(request.spec, walk.when_idle(request))}"
    asked = [
        lease
        for lease in held
        if lease.notice and lease.notice.request_id == request.id
    ]
    if asked:
        seconds = max(ends_at(lease) for lease in asked) - now
        text = f"{wish}; room is being made for it, in {format_about(seconds)} at the latest"
        return text, text
    leaving = _leaving(request, walk, held)
    if leaving:
        return _when_suspended(wish, leaving)
    if eta is None or not shares:
        verdict = walk.room.place(request.spec, host=request.holder.host)
        return _without_end(wish, verdict, held, shares, now)
    until_then = (k for k in walk.keeps if k.blocks(request, now) and k.ends_at == eta)
    keep = next((k for k in until_then if k.shares.keys() & shares.keys()), None)
    if keep is not None:
        text = f"{wish}; room is kept for the reservation {keep.name!r}{_expected(eta, now)}"
        return text, text
    if eta <= now:
        refused = walk.verdict(request) if walk.moves is not None else None
        text = (
            refused.reason
            if isinstance(refused, PlacementFailure)
            else f"{wish}; it is its turn"
        )
        return text, text
    blocking = [
        lease for lease in held if ends_at(lease) == eta and _is_on(lease, shares)
    ]
    if not blocking:
        text = f"{wish}; others go first{_expected(eta, now)}"
        return text, text
    when = f"{wish}; the next one frees in about {format_about(eta - now)} when"
    return f"{when} {blocking[0].holder.user}'s lease ends", f"{when} a lease ends"


def _leaving(request: Request, walk: QueuePass, held: Sequence[Lease]) -> list[Lease]:
    """The leases that are being suspended on devices that could hold a request, where
    there is no room for it now.
    """
    leaving = [
        lease
        for lease in held
        if lease.residence and lease.residence.phase is StatePhase.PARKING
    ]
    if not leaving or not isinstance(walk.verdict(request), PlacementFailure):
        return []
    able = {
        device: share
        for sizes in walk.room.needs(request.spec, request.holder.host).values()
        for device, share in sizes.items()
    }
    return [lease for lease in leaving if _is_on(lease, able)]


def _when_suspended(wish: str, leaving: Sequence[Lease]) -> tuple[str, str]:
    """Who is being suspended, and how much memory that frees on a device."""
    first = leaving[0]
    size = format_bytes(
        max(
            piece.memory_bytes
            for piece in first.slices
            if piece.kind is not SliceKind.CPU
        )
    )
    who = f"{first.holder.label or first.holder.id} ({first.holder.user})"
    return (
        f"{wish}; waits for {who} to be suspended: {size}",
        f"{wish}; waits for an idle kernel to be suspended: {size}",
    )


def _without_end(
    wish: str,
    verdict: object,
    held: Sequence[Lease],
    shares: dict[str, Fraction],
    now: float,
) -> tuple[str, str]:
    """Nobody can say when: what is in the way, and whether it is in use at all."""
    in_the_way = [
        lease for lease in held if _is_on(lease, shares) and math.isinf(ends_at(lease))
    ]
    if isinstance(verdict, PlacementFailure) and not in_the_way:
        return verdict.reason, verdict.reason
    idle = [
        lease
        for lease in in_the_way
        if lease.active_at is not None and now - lease.active_at >= 600
    ]
    text = f"{wish}; what is in its way has no end that is known"
    if not idle:
        return text, text
    longest = min(idle, key=lambda lease: lease.active_at or 0.0)
    since = format_about(now - (longest.active_at or now))
    return (
        f"{text}; {longest.holder.user}'s lease has been idle for {since}",
        f"{text}; one lease is idle for {since}",
    )


def wanted(spec: Spec, when_idle: object) -> str:
    """What a spec asks for, in words."""
    is_cpu = isinstance(when_idle, tuple) and when_idle[0].kind is SliceKind.CPU
    noun = (
        "the CPU" if is_cpu or spec.target is DeviceKind.CPU else f"a {_model(spec)}GPU"
    )
    if spec.unit is Unit.DEVICES:
        count = int(spec.amount)
        if count == 1:
            return (
                "the whole CPU" if noun == "the CPU" else f"a whole {_model(spec)}GPU"
            )
        return f"{count} whole {_model(spec)}GPUs"
    if spec.unit is Unit.PROFILE:
        return f"a MIG instance {spec.profile}"
    if spec.unit is Unit.CORES:
        return f"{spec.amount} cores"
    size = (
        format_bytes(int(spec.amount)) if spec.unit is Unit.MEMORY else str(spec.amount)
    )
    if spec.count == 1:
        return f"{size} of {noun}"
    return f"{size} of each of {spec.count} {_model(spec)}GPUs"


def _model(spec: Spec) -> str:
    return (
        f"{' or '.join(model.upper() for model in spec.models)} " if spec.models else ""
    )


def _is_on(lease: Lease, shares: dict[str, Fraction]) -> bool:
    return any(piece.device_id in shares for piece in lease.slices)


def _expected(at: float | None, now: float) -> str:
    return (
        ""
        if at is None or at <= now
        else f"; expected in about {format_about(at - now)}"
    )
