"""Commands about who is served when: the queue and the reservations."""

from __future__ import annotations

import argparse
import time
from datetime import datetime

from jupyter_aistack.client.text import aligned
from jupyter_aistack.core.model.units import (
    format_about,
    format_duration,
    parse_duration,
)
from jupyter_aistack.exceptions import InvalidRequest

from .connection import connect
from .output import JSON, moment, show

QUEUE_HEADINGS = ("", "wants", "who", "queue", "expected", "why")
RESERVATION_HEADINGS = ("id", "name", "slices", "queue", "when", "made by")


def queue(options: argparse.Namespace) -> int:
    """Who waits for what, why, and until when."""
    waiting = connect().queue()
    now = time.time()
    lines = ["no request waits"]
    if waiting:
        rows = [_queue_row(request, now) for request in waiting]
        lines = aligned([QUEUE_HEADINGS, *rows])
    show(options, {"queue": waiting}, lines)
    return 0


def _queue_row(request: JSON, now: float) -> tuple[str, ...]:
    return (
        f"{request['position']}",
        request["spec"],
        request["holder"]["user"],
        request["queue"],
        _expected(request, now),
        request["reason"],
    )


def _expected(request: JSON, now: float) -> str:
    at = request["eta_at"]
    if at is None:
        return "unknown"
    return f"in about {format_about(at - now)}" if at > now else "now"


def reservations(options: argparse.Namespace) -> int:
    """What is reserved for which queue, now and later."""
    answer = connect().reservations()
    lines = ["nothing is reserved"]
    if answer:
        rows = [_reservation_row(reservation) for reservation in answer]
        lines = aligned([RESERVATION_HEADINGS, *rows])
    show(options, {"reservations": answer}, lines)
    return 0


def _reservation_row(reservation: JSON) -> tuple[str, ...]:
    return (
        reservation["id"],
        reservation["name"],
        _size(reservation),
        reservation["queue"],
        _window(reservation),
        reservation["created_by"],
    )


def _size(reservation: JSON) -> str:
    return f"{reservation['count']} x {reservation['spec']}"


def _window(reservation: JSON) -> str:
    start = reservation["next_starts_at"]
    end = reservation["next_ends_at"]
    when = f"{moment(start)} for {format_duration(end - start)}"
    weekly = ", every week" if reservation["is_weekly"] else ""
    running = ", now" if reservation["is_running"] else ""
    return f"{when}{weekly}{running}"


def reserve(options: argparse.Namespace) -> int:
    """Reserve slices for the members of a queue."""
    from jupyter_aistack.client.durations import lease_seconds

    starts_at = read_moment(options.start, field="from")
    made = connect().call(
        "reserve",
        name=options.name,
        spec=options.spec,
        count=options.count,
        queue=options.queue,
        starts_at=starts_at,
        ends_at=starts_at + lease_seconds(options.duration, field="for"),
        weekly=options.weekly,
    )
    line = f"{made['id']}  {made['name']}: {_size(made)}, {_window(made)}"
    show(options, made, [line])
    return 0


def unreserve(options: argparse.Namespace) -> int:
    """Cancel a reservation."""
    gone = connect().call("unreserve", reservation_id=options.reservation)
    show(options, gone, [f"{gone['id']}  {gone['name']} is no longer reserved"])
    return 0


def read_moment(text: str, *, field: str) -> float:
    """Seconds since the epoch of a time as people write it; on this machine's clock
    where it names no zone.

    Raises:
        InvalidRequest: naming `field`.
    """
    at = _moment(text)
    if at is None:
        raise InvalidRequest(
            f"{field}: {text!r} is not a time; {_ALLOWED_MOMENTS}", field=field
        )
    return at


def read_past_moment(text: str, *, field: str) -> float:
    """Like `read_moment`; ``7d`` is the time seven days ago.

    Raises:
        InvalidRequest: naming `field`.
    """
    at = _moment(text)
    if at is None:
        at = _moment_ago(text)
    if at is None:
        raise InvalidRequest(
            f"{field}: {text!r} is not a time; {_ALLOWED_MOMENTS}, or how long ago: "
            "12h, 7d",
            field=field,
        )
    return at


_ALLOWED_MOMENTS = "write 2026-11-24 10:00, or 2026-11-24T10:00+01:00"


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _moment_ago(text: str) -> float | None:
    has_unit = text.strip()[-1:].isalpha()  # 2026 is a year, and no seconds
    if not has_unit:
        return None
    try:
        return time.time() - parse_duration(text)
    except InvalidRequest:
        return None
