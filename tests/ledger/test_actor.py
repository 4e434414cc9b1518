"""Whose doing a change is."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.ledger.actor import (
    Actor,
    acting,
    acting_by_itself,
    current_actor,
    signed,
)
from jupyter_aistack.system.users import current_user

EVENT = Event(kind=EventKind.SETTINGS_CHANGED, at=1.0)
BOB = Actor(user="bob", uid=1001, pid=None)


def test_what_a_process_does_is_done_by_its_user() -> None:
    event = signed(EVENT)
    who = (current_user(), os.getuid(), os.getpid())
    assert (event.user, event.uid, event.pid) == who
    assert Path(sys.executable).name in event.command
    assert event.host != ""


def test_what_is_done_for_a_caller_is_the_callers_doing() -> None:
    with acting(BOB):
        event = signed(EVENT)
    assert (event.user, event.uid, event.pid, event.command) == ("bob", 1001, None, "")
    assert current_actor().user == current_user()


def test_what_a_broker_does_by_itself_is_nobodys_even_within_a_call() -> None:
    with acting(BOB), acting_by_itself():
        assert current_actor() == Actor(user="", uid=os.getuid(), pid=os.getpid())


def test_an_error_ends_it_too() -> None:
    with pytest.raises(KeyError), acting(BOB):
        raise KeyError
    assert current_actor().user == current_user()


def test_threads_do_not_mix_who_acts() -> None:
    seen: list[str] = []
    with acting(BOB):
        thread = threading.Thread(target=lambda: seen.append(current_actor().user))
        thread.start()
        thread.join()
    assert seen == [current_user()]
