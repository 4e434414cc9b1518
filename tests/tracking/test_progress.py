from __future__ import annotations

import sys
import threading

import pytest

from jupyter_aistack.tracking import progress
from jupyter_aistack.tracking.progress import FlushProgress, announced, tell
from tests.fakes.waiting import wait_until


class Closed:
    """A stderr whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_short_wait_is_silent_and_a_long_one_is_told_less_and_less_often() -> None:
    lines: list[str] = []
    seconds = [0.0]
    progress = FlushProgress(clock=lambda: seconds[0], say=lines.append)
    for tenth in range(1000):
        seconds[0] = tenth / 10
        progress(tenth * 300, 300_000)
    assert lines[0] == "6,000 of 300,000 entries stored after 2 s"
    assert [line.rpartition("after ")[2] for line in lines] == [
        "2 s",
        "4 s",
        "8 s",
        "16 s",
        "32 s",
        "64 s",
    ]


def test_a_line_for_nobody_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed())
    tell("nobody reads this")


def announcers() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name == "aistack-announce"
    ]


def test_a_wait_is_announced_once_it_takes_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.01)
    with announced("opening the store"):
        wait_until(lambda: not announcers())
    assert capsys.readouterr().err == "tracking: opening the store\n"


def test_a_wait_that_was_short_is_never_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with announced("opening the store"):
        assert len(announcers()) == 1
    wait_until(lambda: not announcers())
    assert capsys.readouterr().err == ""
