"""Commands about who is served when: the queue and the reservations."""

from __future__ import annotations

import argparse
import time
from datetime import datetime

from jupyter_aistack.core.model.units import format_about, format_duration
from jupyter_aistack.exceptions import InvalidRequest

from .output import JSON, columns, moment, show


def queue(options: argparse.Namespace) -> int:
    """Who waits for what, why, and until when."""
    from jupyter_aistack.client.client import connect

    waiting = connect().queue()
    now = time.time()
    rows = [
        (
            f"{r['position']}",
            r["spec"],
            r["holder"]["user"],
            r["queue"],
            _expected(r, now),
            r["reason"],
        )
        for r in waiting
    ]
    lines = (
        columns([("", "wants", "who", "queue", "expected", "why"), *rows])
        if rows
        else ["nobody waits"]
    )
    show(options, {"queue": waiting}, lines)
    return 0


def _expected(request: JSON, now: float) -> str:
    at = request["eta_at"]
    if at is None:
        return "unknown"
    return f"in about {format_about(at - now)}" if at > now else "now"


def reservations(options: argparse.Namespace) -> int:
    """What is kept for whom, now and later."""
    from jupyter_aistack.client.client import connect

    found = connect().reservations()
    rows = [
        (
            r["id"],
            r["name"],
            f"{r['count']} x {r['spec']}",
            r["queue"],
            _window(r),
            r["created_by"],
        )
        for r in found
    ]
    heading = ("id", "name", "slices", "queue", "when", "made by")
    show(
        options,
        {"reservations": found},
        columns([heading, *rows]) if rows else ["nothing is reserved"],
    )
    return 0


def _window(reservation: JSON) -> str:
    start = reservation["next_starts_at"]
    end = reservation["next_ends_at"]
    when = f"{moment(start)} for {format_duration(end - start)}"
    again = ", every week" if reservation["is_weekly"] else ""
    return f"{when}{again}{', now' if reservation['is_running'] else ''}"


def reserve(options: argparse.Namespace) -> int:
    """Keep slices for a queue."""
    from jupyter_aistack.client.client import connect
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
    show(
        options,
        made,
        [
            f"{made['id']}  {made['name']}: {made['count']} x {made['spec']}, {_window(made)}"
        ],
    )
    return 0


def unreserve(options: argparse.Namespace) -> int:
    """Take a reservation back."""
    from jupyter_aistack.client.client import connect

    gone = connect().call("unreserve", reservation_id=options.reservation)
    show(options, gone, [f"{gone['id']}  {gone['name']} is no longer reserved"])
    return 0


def read_moment(text: str, *, field: str) -> float:
    """Seconds since the epoch of a time as people write it; on this machine's clock
    where it names no zone.

    Raises:
        InvalidRequest: naming `field`.
    """
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        message = f"{field}: {text!r} is not a time; write 2026-11-24 10:00, or 2026-11-24T10:00+01:00"
        raise InvalidRequest(message, field=field) from None
