"""What a ledger keeps, to and from the columns of its tables."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    Conditions,
    Severity,
)
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.request import Holder, HolderKind, Request, RequestState
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.ledger.lease_end import due_at

FIXED_OF_LEASE = frozenset(
    {"id", "request_id", "spec", "slices", "queue", "granted_at", "preemptible"}
)
"""Columns of a lease that never change; any other may, so a row is the same only while
those are.
"""

FIXED_OF_QUEUED = frozenset(
    {
        "spec",
        "host",
        "holder",
        "queue",
        "priority",
        "lease_seconds",
        "patience_seconds",
        "preemptible",
    }
    | {"submitted_at", "state", "reason", "code", "lease_id"}
)
"""Columns of a request that never change while it waits."""

_spec_from_text = functools.lru_cache(maxsize=4096)(parse_spec)


def lease_to_row(lease: Lease) -> dict[str, Any]:
    """The columns of a lease; ``due_at`` is set while it lives, so that the live ones
    are found by index.
    """
    return {
        "token": lease.token,
        "id": lease.id,
        "request_id": lease.request_id,
        "spec": str(lease.spec),
        "host": lease.holder.host,
        "holder": _holder_to_json(lease.holder),
        "slices": json.dumps(
            [_slice_to_dict(piece) for piece in lease.slices], separators=(",", ":")
        ),
        "queue": lease.queue,
        "state": lease.state.value,
        "granted_at": lease.granted_at,
        "expires_at": lease.expires_at,
        "ends_at": lease.ends_at,
        "due_at": due_at(lease) if lease.is_live else None,
        "preemptible": lease.preemptible,
        "enforced_by": lease.enforced_by.value if lease.enforced_by else None,
        "verified": lease.verified,
        "conditions": _conditions_to_json(lease.conditions),
        "active_at": lease.active_at,
        "notice": _notice_to_json(lease.notice) if lease.notice else None,
        "residence": _residence_to_json(lease.residence) if lease.residence else None,
        "outcome": lease.outcome.value if lease.outcome else None,
        "ended_at": lease.ended_at,
    }


def lease_from_row(row: Mapping[str, Any]) -> Lease:
    return Lease(
        id=row["id"],
        token=row["token"],
        request_id=row["request_id"],
        spec=_spec_from_text(row["spec"]),
        holder=_holder_from_json(row["holder"]),
        slices=_slices_from_json(row["slices"]),
        queue=row["queue"],
        state=LeaseState(row["state"]),
        granted_at=row["granted_at"],
        expires_at=row["expires_at"],
        ends_at=row["ends_at"],
        preemptible=row["preemptible"],
        enforced_by=Enforcement(row["enforced_by"]) if row["enforced_by"] else None,
        verified=row["verified"],
        conditions=_conditions_from_json(row["conditions"]),
        active_at=row["active_at"],
        notice=_notice_from_json(row["notice"]) if row["notice"] else None,
        residence=_residence_from_json(row["residence"]) if row["residence"] else None,
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        ended_at=row["ended_at"],
    )


def request_to_row(request: Request) -> dict[str, Any]:
    return {
        "id": request.id,
        "spec": str(request.spec),
        "host": request.holder.host,
        "holder": _holder_to_json(request.holder),
        "queue": request.queue,
        "priority": request.priority,
        "lease_seconds": request.lease_seconds,
        "patience_seconds": request.patience_seconds,
        "preemptible": request.preemptible,
        "submitted_at": request.submitted_at,
        "state": request.state.value,
        "reason": storable(request.reason),
        "code": request.code,
        "lease_id": request.lease_id,
    }


def request_from_row(row: Mapping[str, Any]) -> Request:
    return Request(
        id=row["id"],
        spec=_spec_from_text(row["spec"]),
        holder=_holder_from_json(row["holder"]),
        queue=row["queue"],
        priority=row["priority"],
        lease_seconds=row["lease_seconds"],
        patience_seconds=row["patience_seconds"],
        preemptible=row["preemptible"],
        submitted_at=row["submitted_at"],
        state=RequestState(row["state"]),
        reason=row["reason"],
        code=row["code"],
        lease_id=row["lease_id"],
    )


def account_to_row(account: Account) -> dict[str, Any]:
    return {**vars(account), "user": storable(account.user)}


def account_from_row(row: Mapping[str, Any]) -> Account:
    return Account(
        user=row["user"],
        queue=row["queue"],
        decayed=row["decayed"],
        at=row["at"],
        week=row["week"],
        week_seconds=row["week_seconds"],
    )


def reservation_to_row(reservation: Reservation) -> dict[str, Any]:
    texts = {
        "name": storable(reservation.name),
        "created_by": storable(reservation.created_by),
    }
    return {**vars(reservation), **texts, "spec": str(reservation.spec)}


def reservation_from_row(row: Mapping[str, Any]) -> Reservation:
    return Reservation(**{**row, "spec": _spec_from_text(row["spec"])})


def meter_to_row(meter: MeterState) -> dict[str, Any]:
    return dict(vars(meter))


def meter_from_row(row: Mapping[str, Any]) -> MeterState:
    return MeterState(**row)


def charge_to_row(charge: UsageRecord) -> dict[str, Any]:
    """The columns of a charge; a kernel's and a cell's name come from outside and must
    be storable in its key too.
    """
    names = ("user", "queue", "owner", "label", "cell", "spec")
    texts = {name: storable(getattr(charge, name)) for name in names}
    return {
        **vars(charge),
        **texts,
        "levels": json.dumps(charge.levels, separators=(",", ":")),
    }


def charge_from_row(row: Mapping[str, Any]) -> UsageRecord:
    return UsageRecord(**{**row, "levels": tuple(json.loads(row["levels"]))})


def span_to_row(span: CellInterval) -> dict[str, Any]:
    return {**vars(span), "owner": storable(span.owner), "cell": storable(span.cell)}


def span_from_row(row: Mapping[str, Any]) -> CellInterval:
    return CellInterval(**row)


def event_to_row(event: Event) -> dict[str, Any]:
    """The columns of an event but its sequence, which the table gives."""
    return {
        "kind": event.kind.value,
        "at": event.at,
        "request_id": event.request_id,
        "lease_id": event.lease_id,
        "detail": storable(event.detail),
    }


def event_from_row(row: Mapping[str, Any]) -> Event:
    return Event(
        kind=EventKind(row["kind"]),
        at=row["at"],
        request_id=row["request_id"],
        lease_id=row["lease_id"],
        detail=row["detail"],
        sequence=row["sequence"],
    )


def _conditions_to_json(conditions: Conditions) -> str:
    if not conditions:
        return "[]"
    rows = [{**vars(each), "message": storable(each.message)} for each in conditions]
    return json.dumps(rows, separators=(",", ":"))


def _conditions_from_json(text: str) -> Conditions:
    if text == "[]":
        return ()
    return tuple(
        Condition(
            kind=ConditionKind(fields["kind"]),
            severity=Severity(fields["severity"]),
            message=fields["message"],
            since=fields["since"],
        )
        for fields in json.loads(text)
    )


def _notice_to_json(notice: Notice) -> str:
    return json.dumps(
        {**vars(notice), "kind": notice.kind.value}, separators=(",", ":")
    )


def _notice_from_json(text: str) -> Notice:
    fields = json.loads(text)
    return Notice(**{**fields, "kind": NoticeKind(fields["kind"])})


def _residence_to_json(residence: DeviceState) -> str:
    texts = {"pinned": storable(residence.pinned), "note": storable(residence.note)}
    return json.dumps({**vars(residence), **texts}, separators=(",", ":"))


def _residence_from_json(text: str) -> DeviceState:
    fields = json.loads(text)
    exact = {
        "phase": StatePhase(fields["phase"]),
        "asked": RequestedAction(fields["asked"]),
        "tier": SuspendMethod(fields["tier"]),
    }
    return DeviceState(**{**fields, **exact})


def _holder_to_json(holder: Holder) -> str:
    fields = {
        name: value for name, value in vars(holder).items() if value not in (None, "")
    }
    return json.dumps(fields, separators=(",", ":"))


@functools.lru_cache(maxsize=4096)
def _holder_from_json(text: str) -> Holder:
    fields = {"id": "", "user": "", "host": ""} | json.loads(text)
    return Holder(**fields | {"kind": HolderKind(fields["kind"])})


@functools.lru_cache(maxsize=4096)
def _slices_from_json(text: str) -> tuple[Slice, ...]:
    return tuple(_slice_from_dict(piece) for piece in json.loads(text))


def _slice_to_dict(piece: Slice) -> dict[str, Any]:
    return {
        **vars(piece),
        "kind": piece.kind.value,
        "fraction": str(piece.fraction),
        "cores": piece.cores,
    }


def _slice_from_dict(fields: Mapping[str, Any]) -> Slice:
    exact = {
        "kind": SliceKind(fields["kind"]),
        "fraction": Fraction(fields["fraction"]),
    }
    return Slice(**{**fields, **exact, "cores": tuple(fields["cores"])})


def storable(text: str) -> str:
    """`text` without what a database cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
