"""Which tasks and sessions of a trace are replayed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.cli.simulate.scenario import Scenario
from jupyter_aistack.cli.simulate.trace import (
    SessionModel,
)
from tests.fakes.sessions import run, tasks

MODEL = SessionModel(
    head_seconds=0, tail_seconds=0, jitter_seconds=0, median_bytes=10e9, p90_bytes=10e9
)


ONE = Scenario(gpus=1, gpus_per_host=1, session_model=MODEL)


def test_long_tasks_are_left_out_and_counted() -> None:
    rows = tasks(("a", 0, 10), ("b", 0, 25 * 60, 1))
    report = run(rows, "reservation", ONE)
    assert report["long_tasks"] == {"tasks": 1, "gpu_hours": 25.0}
    assert (report["tasks"], report["sessions"]) == (1, 1)


def test_sessions_without_tasks_are_added_up_to_their_share() -> None:
    session_model = replace(MODEL, unused_share=0.5)
    report = run(
        tasks(("a", 0, 60), ("b", 30, 60)),
        "reservation",
        replace(ONE, gpus=20, session_model=session_model),
    )
    assert report["gpu_hours_held"] == pytest.approx(4.0)
    assert report["tasks"] == 2
