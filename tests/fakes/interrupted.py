"""A program that asks for a lease again and again, interrupted once or twice each time at
moments that a seed chooses: run it with ``python -m tests.fakes.interrupted``.

The first SIGINT comes at a line of Python that is run, the second so many calls later,
which is inside the clean-up after the first, or after it. What is left behind each time
is printed, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jupyter_aistack.client.client import attached, connect

SECOND_WITHIN = 400
"""Calls after the first interrupt before which the second comes."""


class Moments:
    """Interrupts this thread at the line with a number, and again some calls later.

    Python switches tracing off once a trace function raises, as the interrupt makes it
    do: the second is counted by the profiler, which stays.
    """

    def __init__(self, line: int | None, calls_later: int = 0) -> None:
        self.lines = 0
        self._line = line
        self._calls_later = calls_later

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        if event == "line":
            self.lines += 1
            if self.lines == self._line:
                sys.setprofile(self._profile)
                signal.raise_signal(signal.SIGINT)
        return self._trace

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        self._calls_later -= 1
        if self._calls_later == 0:
            signal.raise_signal(signal.SIGINT)


def ask(spec: str, moments: Moments) -> str:
    """Ask for a lease and give it back; how that ended."""
    try:
        with moments.counted():
            lease = connect().request(spec)
    except KeyboardInterrupt:
        return "interrupted"
    lease.release()
    return "granted"


def main(spec: str, seed: int, times: int, lines: int) -> None:
    """Args: what to ask for, what chooses the moments, how often, and how many lines of
    a request to choose from; 0 counts them first.
    """
    chosen = random.Random(seed)
    client = connect()
    if not lines:
        ask(spec, Moments(None))  # imports what is imported once
        whole = Moments(None)
        ask(spec, whole)
        lines = whole.lines
    for _ in range(times):
        line = chosen.randint(1, lines)
        environment = dict(os.environ)
        cores = os.sched_getaffinity(0)
        second = chosen.choice((0, chosen.randint(1, SECOND_WITHIN)))
        outcome = ask(spec, Moments(line, second))
        mine = client.mine()
        left = {
            "line": line,
            "of": lines,
            "outcome": outcome,
            "attached": attached() is not None,
            "leases": [lease["id"] for lease in mine["leases"]],
            "requests": [request["id"] for request in mine["requests"]],
            "is_as_before": dict(os.environ) == environment
            and os.sched_getaffinity(0) == cores,
        }
        print(json.dumps(left), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
