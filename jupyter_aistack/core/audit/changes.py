"""What a change is told as: the facts that differ, as they were and as they are now.

Both are JSON texts, of an object of the facts that have changed; empty where there was
nothing before, or is nothing after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.lease import Lease, Notice
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation

Facts = dict[str, object]
_Table = Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], object] | None]]
"""Names of facts, how each is read, and how it is written where that differs."""


def as_text(facts: Mapping[str, object]) -> str:
    """Facts as the text that is kept; empty for none."""
    return json.dumps(facts, separators=(",", ":")) if facts else ""


def lease_changes(before: Lease | None, after: Lease) -> tuple[str, str]:
    """What has changed of a lease: as it was, and as it is."""
    return _changes(_OF_LEASE, before, after)


def request_changes(before: Request | None, after: Request) -> tuple[str, str]:
    """What has changed of a request, likewise."""
    return _changes(_OF_REQUEST, before, after)


def reservation_text(reservation: Reservation) -> str:
    """What is told of a reservation."""
    return as_text(
        {
            "id": reservation.id,
            "name": reservation.name,
            "queue": reservation.queue,
            "slices": f"{reservation.count} x {reservation.spec}",
            "starts_at": reservation.starts_at,
            "ends_at": reservation.ends_at,
            "is_weekly": reservation.is_weekly,
            "created_by": reservation.created_by,
        }
    )


def _changes(table: _Table, before: Any, after: Any) -> tuple[str, str]:
    was: Facts = {}
    now: Facts = {}
    for name, (read, write) in table.items():
        old = None if before is None else read(before)
        new = read(after)
        if old == new:
            continue
        _put(was, name, old, write)
        _put(now, name, new, write)
    return as_text(was), as_text(now)


def _put(
    facts: Facts, name: str, value: Any, write: Callable[[Any], object] | None
) -> None:
    if value is None or value == ():
        return
    facts[name] = value if write is None else write(value)


def _slices(slices: tuple[Slice, ...]) -> object:
    return [
        f"{each.device_id} {each.profile or each.fraction}, {each.memory_bytes} bytes"
        for each in slices
    ]


def _limits(limits: tuple[SliceLimit, ...]) -> object:
    return [
        f"{each.device_id} {each.fraction}, {each.memory_bytes} bytes"
        for each in limits
    ]


def _conditions(conditions: tuple[Condition, ...]) -> object:
    return [condition.kind.value for condition in conditions]


def _notice(notice: Notice) -> object:
    return notice.kind.value


def _device_state(state: DeviceState) -> object:
    told: Facts = {"phase": state.phase.value}
    if state.is_kept:
        told["pinned_by_user"] = True
    if state.asked.value:
        told["asked"] = state.asked.value
    return told


def _value(member: Any) -> object:
    return member.value


_OF_LEASE: _Table = {
    "spec": (attrgetter("spec"), str),
    "queue": (attrgetter("queue"), None),
    "holder": (attrgetter("holder.id"), None),
    "label": (attrgetter("holder.label"), None),
    "pid": (attrgetter("holder.pid"), None),
    "slices": (attrgetter("slices"), _slices),
    "state": (attrgetter("state"), _value),
    "outcome": (attrgetter("outcome"), _value),
    "ends_at": (attrgetter("ends_at"), None),
    "up_to": (attrgetter("up_to"), str),
    "limits": (attrgetter("limits"), _limits),
    "enforced_by": (attrgetter("enforced_by"), _value),
    "verified": (attrgetter("verified"), None),
    "conditions": (attrgetter("conditions"), _conditions),
    "notice": (attrgetter("notice"), _notice),
    "device_state": (attrgetter("residence"), _device_state),
}
_OF_REQUEST: _Table = {
    "spec": (attrgetter("spec"), str),
    "queue": (attrgetter("queue"), None),
    "holder": (attrgetter("holder.id"), None),
    "label": (attrgetter("holder.label"), None),
    "priority": (attrgetter("priority"), None),
    "lease_seconds": (attrgetter("lease_seconds"), None),
    "preemptible": (attrgetter("preemptible"), None),
    "up_to": (attrgetter("up_to"), str),
    "state": (attrgetter("state"), _value),
}
