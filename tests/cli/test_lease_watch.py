from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from jupyter_aistack.cli.lease_watch import LeaseWatch
from jupyter_aistack.exceptions import LedgerUnavailable
from tests.fakes.samples import lease

QUICK = 0.001


class Answers:
    """What the granting side answers, one after the other; the last for ever."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers: Iterator[dict[str, Any] | Exception] = iter(answers)
        self._last = answers[-1]
        self.all_given = threading.Event()

    def __call__(self) -> dict[str, Any]:
        answer = next(self._answers, None)
        if answer is None:
            self.all_given.set()
            answer = self._last
        if isinstance(answer, Exception):
            raise answer
        return answer


def ended(outcome: str) -> dict[str, Any]:
    return {**lease(), "state": "ended", "outcome": outcome}


def test_an_end_that_others_have_made_is_told_once() -> None:
    lines: list[str] = []
    told = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        told.set()

    away = LedgerUnavailable("the host broker does not answer")
    with LeaseWatch(Answers(lease(), away, ended("released")), say, QUICK):
        assert told.wait(30)
    (line,) = lines
    assert line == (
        f"the lease {lease()['id']} has ended: released; the command goes on, and its "
        "slice may be given to others"
    )


def test_a_lease_that_lives_is_not_spoken_of() -> None:
    lines: list[str] = []
    answers = Answers(lease(), lease())
    with LeaseWatch(answers, lines.append, QUICK):
        assert answers.all_given.wait(30)
    assert lines == []


def test_its_own_release_is_no_news() -> None:
    lines: list[str] = []
    asked, released = threading.Event(), threading.Event()

    def read() -> dict[str, Any]:
        asked.set()
        assert released.wait(30)
        return ended("released")

    with LeaseWatch(read, lines.append, QUICK) as watch:
        assert asked.wait(30)
    released.set()
    watch.join()
    assert lines == []
