"""Facts of this process are looked up once, and anew in a child."""

from __future__ import annotations

import os
import threading

import pytest

from jupyter_aistack.system.own_process import kept_for_life, own_threads
from jupyter_aistack.system.processes import identity_of, started_at


def test_what_never_changes_is_looked_up_once() -> None:
    looks = []

    @kept_for_life
    def fact() -> int | None:
        looks.append(None)
        return None if len(looks) == 1 else len(looks)

    assert fact() is None
    assert (fact(), fact()) == (2, 2), "what could not be seen is looked up again"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_is_known_by_its_own_start() -> None:
    parent = identity_of(os.getpid())
    assert parent.started == started_at(os.getpid())
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        own = identity_of(os.getpid())
        is_own = own.pid == os.getpid() and own.started == started_at(own.pid)
        os.write(write_end, b"own" if is_own else b"another's")
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as told:
        assert told.read() == b"own"
    os.waitpid(child, 0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_the_threads_of_this_process_are_listed() -> None:
    assert threading.get_native_id() in own_threads()
