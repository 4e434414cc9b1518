"""What a change is told as: the facts that differ, as they were and as they are now.

Both are JSON texts, of an object of the facts that have changed; empty where there was
nothing before, or is nothing after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation

Facts = dict[str, object]


def as_text(facts: Mapping[str, object]) -> str:
    """Facts as the text that is kept; empty for none. What is none of JSON's own, as a
    setting may be, is kept as it is printed.
    """
    if not facts:
        return ""
    return json.dumps(facts, separators=(",", ":"), default=str)


def lease_changes(before: Lease | None, after: Lease) -> tuple[str, str]:
    """What has changed of a lease: as it was, and as it is."""
    return _changes(_FACTS_OF_LEASE, before, after)


def request_changes(before: Request | None, after: Request) -> tuple[str, str]:
    """What has changed of a request, likewise."""
    return _changes(_FACTS_OF_REQUEST, before, after)


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


def _changes(names: Sequence[str], before: Any, after: Any) -> tuple[str, str]:
    was: Facts = {}
    now: Facts = {}
    for name in names:
        read = _READERS[name]
        old = None if before is None else read(before)
        new = read(after)
        if old != new:
            _put(was, name, old)
            _put(now, name, new)
    return as_text(was), as_text(now)


def _put(facts: Facts, name: str, value: Any) -> None:
    if value is None or value == ():
        return
    write = _WRITERS.get(name)
    shown = name.removesuffix(".id").rpartition(".")[2]
    facts[shown] = value if write is None else write(value)


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


def _device_state(state: DeviceState) -> object:
    told: Facts = {"phase": state.phase.value}
    if state.is_kept:
        told["pinned_by_user"] = True
    if state.asked.value:
        told["asked"] = state.asked.value
    return told


_value = attrgetter("value")

_FACTS_OF_LEASE = (
    "spec",
    "queue",
    "holder.id",
    "holder.label",
    "holder.pid",
    "slices",
    "state",
    "outcome",
    "ends_at",
    "up_to",
    "limits",
    "enforced_by",
    "verified",
    "conditions",
    "notice",
    "residence",
)
_FACTS_OF_REQUEST = (
    "spec",
    "queue",
    "holder.id",
    "holder.label",
    "priority",
    "lease_seconds",
    "preemptible",
    "up_to",
    "state",
)
_WRITERS: Mapping[str, Callable[[Any], object]] = {
    "spec": str,
    "slices": _slices,
    "state": _value,
    "outcome": _value,
    "up_to": str,
    "limits": _limits,
    "enforced_by": _value,
    "conditions": _conditions,
    "notice": attrgetter("kind.value"),
    "residence": _device_state,
}
"""How facts are written that are none of JSON's own."""
_READERS: Mapping[str, Callable[[Any], Any]] = {
    name: attrgetter(name) for name in (*_FACTS_OF_LEASE, *_FACTS_OF_REQUEST)
}
