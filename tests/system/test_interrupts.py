"""Ctrl-C that is noted inside a block and raised at its end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from jupyter_aistack.system import interrupts
from jupyter_aistack.system.interrupts import DeferredInterrupts


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Python's own handler, whatever the tests before have left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def steps() -> list[str]:
    """What has happened, in order."""
    return []


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def run(
    steps: list[str],
    *,
    interrupted: int = 0,
    failing: bool = False,
    inside: Callable[[], None] | None = None,
) -> None:
    """A block that notes what it is told, and says when it came to its end."""
    with DeferredInterrupts(
        lambda: steps.append("told"), lambda: steps.append("undone")
    ):
        if inside is not None:
            inside()
        for _ in range(interrupted):
            interrupt()
        if failing:
            raise ValueError("its own")
        steps.append("end")


def test_a_block_comes_to_its_end_is_undone_and_interrupted_then(
    steps: list[str],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(steps, interrupted=2)
    assert steps == ["told", "told", "end", "undone"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_failed_has_nothing_to_undo(steps: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        run(steps, interrupted=1, failing=True)
    assert steps == ["told"]
    assert caught.value.__suppress_context__, "the failure is the interrupt's own doing"


def test_nothing_is_raised_or_undone_without_an_interrupt(steps: list[str]) -> None:
    run(steps)
    with pytest.raises(ValueError, match="its own"):
        run(steps, failing=True)
    assert steps == ["end"]


def test_a_block_begins_and_ends_in_one_step() -> None:
    """Between the steps of Python's own functions an interrupt could come."""
    files: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        files.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        with DeferredInterrupts():
            pass
    finally:
        sys.setprofile(None)
    assert signal.__file__ not in files


def test_a_block_inside_another_raises_at_its_own_end(steps: list[str]) -> None:
    inner: list[str] = []

    def inside() -> None:
        with pytest.raises(KeyboardInterrupt):
            run(inner, interrupted=1)

    with pytest.raises(KeyboardInterrupt):
        run(steps, interrupted=1, inside=inside)
    assert inner == ["told", "end", "undone"]
    assert steps == ["told", "end", "undone"]


def test_who_insists_is_not_kept_waiting(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "INSIST_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        run(steps, interrupted=2)
    assert steps == ["told"]


def test_a_handler_of_the_users_decides_itself(steps: list[str]) -> None:
    signal.signal(signal.SIGINT, lambda *_: steps.append("the user's"))
    run(steps, interrupted=1)
    assert steps == ["the user's", "end"]


def test_other_threads_leave_the_handler_alone(steps: list[str]) -> None:
    seen: list[object] = []

    def inside() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run, args=(steps,), kwargs={"inside": inside})
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_sleep_is_broken_off_at_once_and_what_follows_is_not(steps: list[str]) -> None:
    def sleep_and_clean_up() -> None:
        with DeferredInterrupts() as interrupts:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                interrupts.sleep(60.0)
            except KeyboardInterrupt:
                interrupt()
                steps.append("cleaned up")
                raise

    before = signal.signal(signal.SIGALRM, lambda *_: interrupt())
    try:
        with pytest.raises(KeyboardInterrupt):
            sleep_and_clean_up()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert steps == ["cleaned up"]


def test_sleep_does_not_begin_after_an_interrupt(steps: list[str]) -> None:
    def sleep_too_late() -> None:
        with DeferredInterrupts() as interrupts:
            interrupt()
            interrupts.sleep(60.0)
            steps.append("slept")

    with pytest.raises(KeyboardInterrupt):
        sleep_too_late()
    assert steps == []


def test_an_interrupt_while_a_block_is_undone_waits_for_its_end(
    steps: list[str],
) -> None:
    def undo() -> None:
        interrupt()
        steps.append("undone")

    with pytest.raises(KeyboardInterrupt), DeferredInterrupts(undo=undo):
        interrupt()
    assert steps == ["undone"]


def test_sleep_does_not_begin_in_a_block_whose_outer_block_was_interrupted() -> None:
    def wait() -> None:
        with DeferredInterrupts():
            interrupt()
            with DeferredInterrupts() as inner:
                inner.sleep(60.0)

    with pytest.raises(KeyboardInterrupt):
        wait()
