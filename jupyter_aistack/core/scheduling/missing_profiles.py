"""Which MIG instances would have to be created for those who wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.placement.placement import PlacementFailure

from .queue_order import group_requests, ordered
from .queue_pass import QueuePass


def lacking(snapshot: Snapshot, now: float) -> tuple[str, ...]:
    """Profiles that waiting requests want and no free instance is of, first served
    first.

    Requests that a limit holds back are left out, for an instance would not help them;
    so are those that insist on a model, which no plan looks at.
    """
    waiting = [
        request for request in snapshot.requests if _could_be_helped(request, snapshot)
    ]
    if not waiting:
        return ()
    walk = QueuePass(
        snapshot,
        [lease for lease in snapshot.leases if lease.is_live],
        now,
        ttl_seconds=0.0,
    )
    return _without_instance(ordered(group_requests(waiting), walk.standing), walk)


def _could_be_helped(request: Request, snapshot: Snapshot) -> bool:
    spec = request.spec
    return (
        spec.unit is Unit.PROFILE
        and spec.count == 1
        and not spec.models
        and request.id not in snapshot.dead
    )


def _without_instance(requests: Iterable[Request], walk: QueuePass) -> tuple[str, ...]:
    profiles = []
    for request in requests:
        if walk.standing.limit(request, Fraction(0), 1) is not None:
            continue  # how much of a GPU the instance will be is not known yet
        walk.standing.promise(request.queue, request.holder.user, Fraction(0), 1)
        found = walk.room.place(_instance_alone(request.spec), host=request.holder.host)
        if isinstance(found, PlacementFailure):
            profiles.append(request.spec.profile)
        else:
            walk.room.take(found)
    return tuple(profiles)


def _instance_alone(spec: Spec) -> Spec:
    """Cores and memory of the host that are missing beside it cannot be cut out of a
    GPU.
    """
    return replace(spec, host_cores=0, host_memory_bytes=0)
