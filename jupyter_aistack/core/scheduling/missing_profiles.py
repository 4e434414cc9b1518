"""Which MIG instances would have to be created for the requests that wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.placement.verdict import PlacementFailure

from .pass_state import PassState
from .queue_order import group_requests, ordered


def missing_profiles(
    snapshot: Snapshot, now: float, *, cache: PlacementCache | None = None
) -> tuple[str, ...]:
    """Profiles that waiting requests want and no free instance is of, first served
    first.

    Requests that a limit holds back are left out, for an instance would not help them;
    so are those that insist on a model, which no plan of instances considers.
    """
    waiting = [
        request for request in snapshot.requests if _could_be_helped(request, snapshot)
    ]
    if not waiting:
        return ()
    facts = (cache or PlacementCache()).facts(snapshot.inventory)
    held = [lease for lease in snapshot.leases if lease.is_live]
    state = PassState(snapshot, held, now, facts=facts)
    return _without_instance(ordered(group_requests(waiting), state.fair_share), state)


def _could_be_helped(request: Request, snapshot: Snapshot) -> bool:
    spec = request.spec
    is_one_instance = spec.unit is Unit.PROFILE and spec.count == 1
    return is_one_instance and not spec.models and request.id not in snapshot.dead


def _without_instance(requests: Iterable[Request], state: PassState) -> tuple[str, ...]:
    profiles = []
    for request in requests:
        # How much of a GPU the instance will be is not known yet: it counts as a slice
        # without size.
        size = Fraction(0)
        if state.fair_share.check_limits(request, size, 1) is not None:
            continue
        state.fair_share.promise(request.queue, request.holder.user, size, 1)
        verdict = state.capacity.place(
            _instance_alone(request.spec), host=request.holder.host
        )
        if isinstance(verdict, PlacementFailure):
            profiles.append(request.spec.profile)
        else:
            state.capacity.allocate(verdict)
    return tuple(profiles)


def _instance_alone(spec: Spec) -> Spec:
    """Cores and memory of the host that are missing beside it cannot be cut out of a
    GPU.
    """
    return replace(spec, host_cores=0, host_memory_bytes=0)
