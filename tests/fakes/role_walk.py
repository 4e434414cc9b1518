"""What the table of roles is walked with: for every verb a call that names what is
another user's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jupyter_aistack.core.model.roles import (
    NAMING_VERBS,
    REACHES,
    Reach,
    Role,
    Standing,
)

MANAGED, OTHER = "class", "default"
"""The queue that the manager manages, and one that nobody does."""
QUEUES = {MANAGED: {}, OTHER: {}}
STANDINGS = {
    Role.USER: Standing(),
    Role.MANAGER: Standing(queues=frozenset({MANAGED})),
    Role.OPERATOR: Standing(is_operator=True),
    Role.ADMIN: Standing(is_admin=True),
}
ENDING = ("cancel", "release", "unreserve")
"""Verbs that end what the others are about: they come last."""
OF_TRANSPORTS = frozenset({"orders", "done"})
"""Verbs that a Jupyter server answers by itself."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What another user has in a queue."""

    queue: str
    lease_id: str
    request_id: str
    reservation_id: str


def wish(queue: str, starts_at: float) -> dict[str, Any]:
    """A reservation that can be kept."""
    times = {"starts_at": starts_at, "ends_at": starts_at + 60.0}
    return {"name": "a class", "spec": "1/8", "queue": queue, **times}


def calls(target: Target, pid: int, starts_at: float) -> dict[str, dict[str, Any]]:
    """A call of every verb that is about what somebody has, by verb: what they end last.

    Args:
        target: what they are about.
        pid: a process of who calls.
        starts_at: when nothing is reserved yet.
    """
    of_lease = {"lease_id": target.lease_id, "token": 1}
    of_process = {"lease_ids": [target.lease_id], "pid": pid, "client_pid": pid}
    by_verb = {
        "activate": of_lease,
        "listed": {**of_lease, "pid": pid},
        "bind": {**of_lease, "root_pid": pid},
        "extend": {**of_lease, "seconds": 60},
        "pin": of_lease,
        "unpin": of_lease,
        "begin_cell": of_lease,
        "end_cell": of_lease,
        "suspend": of_lease,
        "resume": of_lease,
        "prepare": of_lease,
        "bind_kernel": {**of_lease, "pid": pid},
        "device_use": of_process,
        "device_clients": of_process,
        "terminate_client": of_process,
        "breach_handled": {**of_lease, "words": "ended"},
        "breach_postponed": of_lease,
        "wait_for": {"request_id": target.request_id},
        "reserve": wish(target.queue, starts_at),
        "drain": {"device": "0"},
        "quarantine": {"device": "0"},
        "undrain": {"device": "0"},
        "mig_apply": {},
        "audit": {"user": "somebody-else"},
        "archive": {"dry_run": True},
        "cancel": {"request_id": target.request_id},
        "release": of_lease,
        "unreserve": {"reservation_id": target.reservation_id},
    }
    assert tuple(by_verb)[-len(ENDING) :] == ENDING
    return by_verb


def is_refused(verb: str, role: Role, queue: str) -> bool:
    """What the table says of a call about what is another's."""
    return not STANDINGS[role].may(verb, queue)


def sees_name(verb: str, role: Role, queue: str) -> bool:
    """Whether the table shows whose something in a queue is."""
    assert verb in NAMING_VERBS
    return STANDINGS[role].may(verb, queue)


def harmless(verb: str) -> bool:
    """Whether a verb is about what is one's own, or shown to all."""
    reaches = set(REACHES[verb])
    return reaches in ({Reach.OWN}, {Reach.ALL})
