"""Core values to and from JSON: the one contract that both towers and the TypeScript
side share.

Times are seconds since the epoch, sizes are bytes, shares are text such as ``"1/4"``.
What users send is checked field by field (``*_field``) and named in `InvalidRequest`;
what the other side of a wire sends is taken at its word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    Conditions,
    Severity,
)
from jupyter_aistack.core.model.device import (
    Device,
    Enforcement,
    Inventory,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
    display_state,
    why_pinned,
)
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.policy import Queue
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.usage_history import equivalents
from jupyter_aistack.core.placement.placement import free_share
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.exceptions import InvalidRequest

JSON = dict[str, Any]
UNTOLD = frozenset({"is_restored", "away_at", "away_seconds"})
"""Of a residence."""
END_OF_TIME = 1e11
"""In seconds since the epoch; beyond the year 5000 nobody reserves anything."""


def slice_to_dict(piece: Slice) -> JSON:
    return {
        "device_id": piece.device_id,
        "kind": piece.kind.value,
        "fraction": str(piece.fraction),
        "memory_bytes": piece.memory_bytes,
        "uuid": piece.uuid,
        "profile": piece.profile,
        "cores": list(piece.cores),
    }


def slice_from_dict(data: Mapping[str, Any]) -> Slice:
    return Slice(
        device_id=data["device_id"],
        kind=SliceKind(data["kind"]),
        fraction=Fraction(data["fraction"]),
        memory_bytes=data["memory_bytes"],
        uuid=data["uuid"],
        profile=data["profile"],
        cores=tuple(data["cores"]),
    )


def holder_to_dict(holder: Holder) -> JSON:
    data = asdict(holder)
    del data["pid_started_at"]
    return {**data, "kind": holder.kind.value}


def holder_from_dict(data: Mapping[str, Any]) -> Holder:
    known = {
        k: data[k]
        for k in ("id", "user", "host", "pid", "root_pid", "label", "parent")
        if k in data
    }
    return Holder(kind=HolderKind(data["kind"]), **known)


def notice_to_dict(notice: Notice) -> JSON:
    return {**asdict(notice), "kind": notice.kind.value}


def notice_from_dict(data: Mapping[str, Any]) -> Notice:
    return Notice(**{**data, "kind": NoticeKind(data["kind"])})


def residence_to_dict(residence: DeviceState) -> JSON:
    """Where a lease's device state is; ``standing`` and ``why`` are for people. What
    only ledgers need is left out.
    """
    why = (
        residence.note
        if residence.phase is StatePhase.LOST
        else why_pinned(residence) or residence.note
    )
    told = {
        name: value for name, value in asdict(residence).items() if name not in UNTOLD
    }
    return {**told, "standing": display_state(residence).value, "why": why}


def residence_from_dict(data: Mapping[str, Any]) -> DeviceState:
    known = {
        name: value for name, value in data.items() if name not in ("standing", "why")
    }
    exact = {
        "phase": StatePhase(data["phase"]),
        "asked": RequestedAction(data["asked"]),
        "tier": SuspendMethod(data["tier"]),
    }
    return DeviceState(**{**known, **exact})


def condition_to_dict(condition: Condition) -> JSON:
    return {
        "kind": condition.kind.value,
        "severity": condition.severity.value,
        "message": condition.message,
        "since": condition.since,
    }


def condition_from_dict(data: Mapping[str, Any]) -> Condition:
    return Condition(
        kind=ConditionKind(data["kind"]),
        severity=Severity(data["severity"]),
        message=data["message"],
        since=data["since"],
    )


def conditions_from_list(data: Iterable[Mapping[str, Any]]) -> Conditions:
    return tuple(map(condition_from_dict, data))


def lease_to_dict(lease: Lease) -> JSON:
    return {
        "id": lease.id,
        "token": lease.token,
        "request_id": lease.request_id,
        "spec": str(lease.spec),
        "holder": holder_to_dict(lease.holder),
        "slices": [slice_to_dict(piece) for piece in lease.slices],
        "queue": lease.queue,
        "state": lease.state.value,
        "granted_at": lease.granted_at,
        "expires_at": lease.expires_at,
        "ends_at": lease.ends_at,
        "preemptible": lease.preemptible,
        "enforced_by": lease.enforced_by.value if lease.enforced_by else None,
        "enforcement": lease.enforced_by.label if lease.enforced_by else "",
        "verified": lease.verified,
        "conditions": [condition_to_dict(each) for each in lease.conditions],
        "active_at": lease.active_at,
        "notice": notice_to_dict(lease.notice) if lease.notice else None,
        "residence": residence_to_dict(lease.residence) if lease.residence else None,
        "outcome": lease.outcome.value if lease.outcome else None,
        "ended_at": lease.ended_at,
    }


def lease_from_dict(data: Mapping[str, Any]) -> Lease:
    return Lease(
        id=data["id"],
        token=data["token"],
        request_id=data["request_id"],
        spec=parse_spec(data["spec"]),
        holder=holder_from_dict(data["holder"]),
        slices=tuple(slice_from_dict(piece) for piece in data["slices"]),
        queue=data["queue"],
        state=LeaseState(data["state"]),
        granted_at=data["granted_at"],
        expires_at=data["expires_at"],
        ends_at=data["ends_at"],
        preemptible=data["preemptible"],
        enforced_by=Enforcement(data["enforced_by"]) if data["enforced_by"] else None,
        verified=data["verified"],
        conditions=conditions_from_list(data["conditions"]),
        active_at=data["active_at"],
        notice=notice_from_dict(data["notice"]) if data["notice"] else None,
        residence=residence_from_dict(data["residence"]) if data["residence"] else None,
        outcome=Outcome(data["outcome"]) if data["outcome"] else None,
        ended_at=data["ended_at"],
    )


def request_to_dict(
    request: Request, position: int | None = None, eta_at: float | None = None
) -> JSON:
    data = asdict(request)
    return {
        **data,
        "spec": str(request.spec),
        "holder": holder_to_dict(request.holder),
        "state": request.state.value,
        "position": position,
        "eta_at": eta_at,
    }


def device_to_dict(device: Device, free: Fraction) -> JSON:
    data = asdict(device)
    del data["processes"], data["free_bytes"]  # what is in use is told by usage
    lists = {"cores": list(device.cores), "peers": sorted(device.peers)}
    firmness = {
        "level": device.level.value if device.level else None,
        "why_not": dict(device.why_not),
    }
    return {
        **data,
        **lists,
        **firmness,
        "kind": device.kind.value,
        "free_fraction": str(free),
    }


def queue_to_dict(queue: Queue, held: Fraction = Fraction(0)) -> JSON:
    """A queue, and the device equivalents its leases hold."""
    return {
        "name": queue.name,
        "quota": str(queue.quota),
        "limit": None if queue.limit is None else str(queue.limit),
        "weight": str(queue.weight),
        "priority": queue.priority,
        "is_open": queue.is_open,
        "is_batch": queue.is_batch,
        "members": sorted(queue.members),
        "idle": asdict(queue.idle) if queue.idle else None,
        "suspend": queue.suspend,
        "held": str(held),
    }


def reservation_to_dict(reservation: Reservation, now: float) -> JSON:
    """A reservation, and its window that runs at `now` or else comes next."""
    starts_at, ends_at = reservation.window(now) or (
        reservation.starts_at,
        reservation.ends_at,
    )
    data = asdict(reservation)
    del data["host"]
    return {
        **data,
        "spec": str(reservation.spec),
        "next_starts_at": starts_at,
        "next_ends_at": ends_at,
        "is_running": reservation.is_running(now),
    }


def host_to_dict(
    inventory: Inventory,
    leases: Iterable[Lease],
    queues: Iterable[Queue],
    *,
    reservations: Iterable[Reservation] = (),
    problems: Sequence[str] = (),
    capability: SuspendCapability | None = None,
    now: float = 0.0,
) -> JSON:
    """The host. `problems` are added to those of its devices; `now` tells which
    reservations run.

    `capability` says how well it can suspend its kernels.
    """
    can = capability or SuspendCapability()
    live = [lease for lease in leases if lease.is_live]
    taken = [piece for lease in live for piece in lease.occupied]
    held: dict[str, Fraction] = {}
    for lease in live:
        held[lease.queue] = held.get(lease.queue, Fraction(0)) + equivalents(
            lease.occupied
        )
    return {
        "host": inventory.host,
        "simulated": inventory.is_simulated,
        "problems": [*inventory.problems, *problems],
        "suspend": {"tier": can.tier.value, "why": can.why},
        "devices": [device_to_dict(d, free_share(d, taken)) for d in inventory.devices],
        "queues": [
            queue_to_dict(queue, held.get(queue.name, Fraction(0))) for queue in queues
        ],
        "reservations": [
            reservation_to_dict(reservation, now) for reservation in reservations
        ],
    }


def event_to_dict(event: Event) -> JSON:
    return {**asdict(event), "kind": event.kind.value}


def preparation_to_dict(prepared: Preparation) -> JSON:
    promised = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(prepared.expects).items()
        if value is not None
    }
    return {
        "environment": dict(prepared.environment),
        "cores": list(prepared.cores),
        "memory_limit_bytes": prepared.memory_limit_bytes,
        "enforced_by": prepared.enforced_by.value,
        "expects": promised,
        "conditions": [condition_to_dict(each) for each in prepared.conditions],
    }


def preparation_from_dict(data: Mapping[str, Any]) -> Preparation:
    promised: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data["expects"].items()
    }
    return Preparation(
        environment=dict(data["environment"]),
        cores=tuple(data["cores"]),
        memory_limit_bytes=data["memory_limit_bytes"],
        enforced_by=Enforcement(data["enforced_by"]),
        expects=Expectation(**promised),
        conditions=conditions_from_list(data["conditions"]),
    )


def text_field(
    payload: Mapping[str, Any], name: str, default: str | None = None
) -> str:
    """The text under `name`; raises `InvalidRequest` when it is missing (without a
    default) or not text.
    """
    value = payload.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidRequest(f"{name}: expected text, got {value!r}", field=name)
    return value


def number_field(
    payload: Mapping[str, Any],
    name: str,
    *,
    least: float = 0.0,
    most: float = 366 * 86400.0,
) -> float | None:
    """The number under `name`, or None when absent; raises `InvalidRequest` when it is
    not one in [least, most].
    """
    value = payload.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
    ):
        raise InvalidRequest(
            f"{name}: expected a number between {least:g} and {most:g}, got {value!r}",
            field=name,
        )
    return float(value)


def integer_field(
    payload: Mapping[str, Any], name: str, *, least: int = 0, most: int = 2**53
) -> int:
    """The integer under `name`; raises `InvalidRequest` when it is missing or out of
    range.
    """
    value = payload.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not least <= value <= most
    ):
        raise InvalidRequest(
            f"{name}: expected a whole number between {least} and {most}, got {value!r}",
            field=name,
        )
    return value


def moment_field(payload: Mapping[str, Any], name: str) -> float:
    """The time under `name`, in seconds since the epoch; raises `InvalidRequest` when
    it is missing or not one.
    """
    value = number_field(payload, name, most=END_OF_TIME)
    if value is None:
        raise InvalidRequest(
            f"{name}: say when, in seconds since the epoch", field=name
        )
    return value


def flag_field(payload: Mapping[str, Any], name: str) -> bool:
    """The boolean under `name`, False when absent; raises `InvalidRequest` when it is
    anything else.
    """
    value = payload.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(
            f"{name}: expected true or false, got {value!r}", field=name
        )
    return value
