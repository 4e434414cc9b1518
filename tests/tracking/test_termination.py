"""What a process does with its open runs when it is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jupyter_aistack.tracking.termination import SIGNALS, TerminationGuard

PROLOGUE = """
import os, signal, sys, threading
from jupyter_aistack.tracking.termination import TerminationGuard
guard = TerminationGuard()
def end():
    print("ended", flush=True)
"""


def outcome(script: str) -> tuple[int, str]:
    """How a process ends that runs this, and what it has printed."""
    code = PROLOGUE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_runs_are_ended_and_the_process_dies_of_the_signal(name: str) -> None:
    number = signal.Signals[name]
    assert outcome(f"""
        guard.add(end)
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    """) == (-number, "ended\n")


def test_an_end_that_fails_does_not_keep_the_process_alive() -> None:
    code, printed = outcome("""
        def fail():
            raise ValueError
        guard.add(fail)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    """)
    assert (code, printed) == (-signal.SIGTERM, "")


def test_a_second_signal_ends_the_process_at_once() -> None:
    assert outcome("""
        def hang():
            print("ending", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        guard.add(hang)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    """) == (-signal.SIGTERM, "ending\n")


def test_a_forked_child_dies_of_the_signal_and_ends_nothing() -> None:
    assert outcome("""
        guard.add(end)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        print(os.waitpid(child, 0)[1], flush=True)
    """) == (0, f"{int(signal.SIGTERM)}\n")


def test_a_forked_childs_own_run_is_ended_and_not_its_parents() -> None:
    assert outcome("""
        guard.add(end)
        child = os.fork()
        if child == 0:
            guard.add(lambda: print("own", flush=True))
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        print(os.waitpid(child, 0)[1], flush=True)
    """) == (0, f"own\n{int(signal.SIGTERM)}\n")


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Nobody handles the signals; afterwards it is as it was."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_handlers")
def test_the_handler_is_there_only_while_a_run_is_open() -> None:
    guard = TerminationGuard()
    ends: list[Callable[[], None]] = [lambda: None, lambda: None]
    for end in ends:
        guard.add(end)
    guard.remove(ends[0])
    assert signal.getsignal(signal.SIGTERM) == guard.on_signal
    guard.remove(ends[1])
    guard.remove(ends[1])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_the_users_own_stays(theirs: Any) -> None:
    signal.signal(signal.SIGTERM, theirs)
    try:
        guard = TerminationGuard()
        guard.add(os.getpid)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGTERM) is theirs
        guard.remove(os.getpid)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.usefixtures("default_handlers")
def test_a_run_of_another_thread_is_no_error() -> None:
    guard = TerminationGuard()
    thread = threading.Thread(target=guard.add, args=(os.getpid,))
    thread.start()
    thread.join(30)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
