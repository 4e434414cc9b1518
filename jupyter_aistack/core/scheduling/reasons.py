"""Why a request waits, as its owner and as others are told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.units import format_about
from jupyter_aistack.core.placement.placement import Capacity

from .start_times import Start


@dataclass(frozen=True)
class Reason:
    """Why a request waits: a sentence that may name other users, and a sentence that
    does not.
    """

    named: str
    public: str


def public(text: str) -> Reason:
    """A sentence that names no user."""
    return Reason(text, text)


def expected(at: float | None, now: float) -> str:
    """When it is expected to be granted; empty where that is not known, or now."""
    if at is None or at <= now or math.isinf(at):
        return ""
    return f"; expected in about {format_about(at - now)}"


def why_drained(
    request: Request, start: Start, wish: str, capacity: Capacity, now: float
) -> Reason | None:
    """A device that has the room is out of placement by hand; None where none is, or
    the request starts elsewhere before that ends.
    """
    by_host = capacity.needs(request.spec, request.holder.host)
    for sizes in by_host.values():
        for device_id, size in sizes.items():
            device = capacity.device(device_id)
            if device.drain is None or not capacity.holds(device_id, size):
                continue
            if math.isinf(start.at) or start.at == device.drain.until:
                text = f"{wish}; {device.name} {device.index} {device.drain.text}"
                return public(f"{text}{expected(start.at, now)}")
    return None
