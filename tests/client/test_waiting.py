"""What a process is told that waits for a slice, and nobody watches it."""

from __future__ import annotations

import sys

import pytest

from jupyter_aistack.client.waiting import (
    SILENT_SECONDS,
    TOLD_SECONDS,
    WaitProgress,
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_of_a_moment_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = WaitProgress("1/2", clock=clock)
    progress.waits(1, "needs 1/2 of a GPU")
    clock.now += SILENT_SECONDS - 0.1
    progress.waits(1, "needs 1/2 of a GPU")
    progress.granted()
    assert capsys.readouterr().err == ""


def test_a_longer_wait_says_what_for_and_where_in_the_queue_and_how_it_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = WaitProgress("1/2", clock=clock)
    clock.now += SILENT_SECONDS
    for position in (3, 3, 2):
        progress.waits(position, "eve\x1b[2J is ahead")
        clock.now += 1
    clock.now += TOLD_SECONDS
    for _ in range(2):
        progress.waits(1, "it is its turn")
        clock.now += TOLD_SECONDS
    progress.granted()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "aistack waits for 1/2, number 3 in the queue: eve\\x1b[2J is ahead",
        "aistack waits for 1/2, number 1 in the queue: it is its turn",
        "aistack: 1/2 was granted after 95 s",
    ]


class Closed:
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [Closed(), None])
def test_a_stderr_that_is_closed_ends_no_wait(
    stderr: Closed | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = WaitProgress("1/2", clock=clock)
    clock.now += SILENT_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        progress.waits(None, "not planned yet")
        progress.granted()
    assert capsys.readouterr().out == ""
