"""Which lease this process has attached to itself: one at a time, whichever of its
threads asks.

A process that is forked from this one has attached none: what its parent holds is the
parent's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from jupyter_aistack.exceptions import LeaseError

from .runtime import attach as attaching


class AttachedLease(Protocol):
    """What is kept of a lease that is attached."""

    @property
    def id(self) -> str:
        """The lease's id."""

    @property
    def spec(self) -> str:
        """What was asked for."""

    def drop(self) -> str:
        """Detach it if it has ended by itself; a line for the user, or nothing."""

    def release(self) -> object:
        """End it."""


class _Place:
    """The one place of this process for a lease.

    Attributes:
        lock: held while the environment changes, or who has the place.
        attached: the lease that is attached, by its id.
        asking: what a thread is asking for, or is attaching just now; empty for
            nothing.
        settled: the requests whose lease is not to be attached by itself any more.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.attached: dict[str, AttachedLease] = {}
        self.asking = ""
        self.settled: set[str] = set()

    def empty(self) -> None:
        """Begin anew, in a process that was just forked: another thread's lock would
        never be released here.
        """
        self.lock = threading.RLock()
        self.attached = {}
        self.asking = ""


_place = _Place()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_place.empty)


@contextlib.contextmanager
def place_for(spec: str) -> Iterator[None]:
    """Take this process's place for a lease before that is asked for, and keep it until
    the lease is attached or given up.

    Args:
        spec: what is asked for, for the message to others.

    Raises:
        LeaseError: a lease is attached, or another thread has the place.
    """
    with _place.lock:
        _check_free(spec)
        _place.asking = spec
    try:
        yield
    finally:
        with _place.lock:
            _place.asking = ""


def _check_free(spec: str) -> None:
    held = attached()
    if held is not None:
        raise LeaseError(
            f"this process already holds {held.spec} ({held.id}); release it to ask for {spec}"
        )
    if _place.asking:
        raise LeaseError(
            f"another thread of this process is asking for {_place.asking} already, and a process has one slice; "
            f"let the threads share it, or ask for {spec} with attach=False"
        )


@contextlib.contextmanager
def changing() -> Iterator[None]:
    """Alone among the threads while the environment of this process changes."""
    with _place.lock:
        yield


def add(lease: AttachedLease) -> None:
    """Remember that a lease is attached."""
    _place.attached[lease.id] = lease


def remove(lease_id: str) -> None:
    """Forget a lease; that it was never attached is no error."""
    _place.attached.pop(lease_id, None)


def attached() -> AttachedLease | None:
    """The lease this process asked for and attached to itself, if it still has it."""
    return next(iter(_place.attached.values()), None)


def drop_ended(live: Collection[str] = ()) -> list[str]:
    """Detach attached leases that have ended by themselves; one line for the user about
    each.

    Args:
        live: ids that are known to be live and need not be asked for.
    """
    leases = [lease for id_, lease in _place.attached.items() if id_ not in live]
    lines = [lease.drop() for lease in leases]
    return [line for line in lines if line]


def is_new(lease: Mapping[str, Any]) -> bool:
    """Whether a lease of this kernel came from elsewhere (a page, a queue) and is still
    to be attached.

    Not a lease this process was launched with, had attached before, or asked for with
    ``attach=False``.
    """
    from jupyter_aistack.core.model.lease import LeaseState

    is_launched_with = lease["id"] in attaching.LAUNCH_LEASES
    is_settled = is_launched_with or lease["request_id"] in _place.settled
    return lease["state"] == LeaseState.GRANTED.value and not is_settled


def settle(request_id: str) -> None:
    """Remember that what this request has become, or will become, is not to be attached
    by itself any more.
    """
    _place.settled.add(request_id)
