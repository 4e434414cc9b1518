"""Who makes the changes that the ledger writes down.

It is a fact of the call that is being answered, not of its arguments: the verbs of a
broker say it once (`acting`), and what is written within it has their name. What a
process does with its broker in its own hands is done by its user; what a broker does
because it is time, by itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.system.command_lines import command_of
from jupyter_aistack.system.own_process import kept_for_life
from jupyter_aistack.system.users import current_user


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who makes a change.

    Attributes:
        user: login; empty for the broker itself.
        uid: the user's number; None where it is not known.
        pid: the process; None for a browser.
    """

    user: str
    uid: int | None = None
    pid: int | None = None


_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


def current_actor() -> Actor:
    """Who makes the changes now; this process's user where nobody has said."""
    actor = _acting.get()
    return _process_user() if actor is None else actor


def _process_user() -> Actor:
    user = _login()
    return Actor(user=user or "", uid=os.getuid(), pid=os.getpid())


_login = kept_for_life(current_user)


@contextlib.contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What is written in this block is done by `actor`."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


@contextlib.contextmanager
def acting_by_itself() -> Iterator[None]:
    """What is written in this block the broker does by itself."""
    with acting(Actor(user="", uid=os.getuid(), pid=os.getpid())):
        yield


def signed(event: Event) -> Event:
    """An event with who has made it happen."""
    actor = current_actor()
    command = "" if actor.pid is None else command_of(actor.pid)
    return replace(
        event,
        user=actor.user,
        uid=actor.uid,
        pid=actor.pid,
        command=command,
        host=socket.gethostname(),
    )
