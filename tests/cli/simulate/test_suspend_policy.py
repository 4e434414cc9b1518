"""Suspension, replayed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.cli.simulate.scenario import Scenario
from jupyter_aistack.cli.simulate.trace import (
    HOUR,
    MINUTE,
    SessionModel,
)
from jupyter_aistack.core.model.units import GIB
from tests.fakes.sessions import open_for, run, tasks

MODEL = SessionModel(
    head_seconds=0, tail_seconds=0, jitter_seconds=0, median_bytes=10e9, p90_bytes=10e9
)


ONE = Scenario(gpus=1, gpus_per_host=1, session_model=MODEL)


CHECKPOINT = 0.13 + 10 / 3


RESTORE = 0.15 + 10 / 5.3


def test_suspend_parks_an_idle_session_and_resumes_it_at_its_next_task() -> None:
    report = run(tasks(("a", 0, 10), ("a", 70, 10)), "suspend", ONE)
    assert report["resumes_per_task"] == 0.5
    assert report["delay_s"]["p99"] == pytest.approx(RESTORE, abs=0.001)
    assert report["gpu_hours_held"] == pytest.approx(
        (30 * 60 + CHECKPOINT + RESTORE + 600) / 3600, abs=0.05
    )
    assert report["host_gib_parked_peak"] == pytest.approx(10e9 / GIB, abs=0.05)


def test_sessions_share_a_gpu_while_their_memory_fits() -> None:
    report = run(
        tasks(("a", 0, 10), ("a", 20, 10), ("b", 10, 10)),
        "suspend",
        replace(ONE, session_model=open_for(MINUTE)),
    )
    assert report["immediate_pct"] == 100
    assert report["resumes_per_task"] == 0
    assert report["gpu_hours_held"] > report["gpu_hours_occupied"]


def test_the_least_recently_used_session_makes_room() -> None:
    session_model = replace(
        open_for(HOUR), median_bytes=30e9, p90_bytes=30e9
    )  # two of these fit on a GPU
    rows = tasks(("a", 0, 1), ("b", 2, 1), ("b", 8, 1), ("c", 4, 1))
    report = run(
        rows,
        "suspend",
        replace(ONE, session_model=session_model, park_seconds=2 * HOUR),
    )
    checkpoint = 0.13 + 30 / 3
    assert report["resumes_per_task"] == 0  # a was parked for c, b was not
    assert report["host_gib_parked_peak"] == pytest.approx(30e9 / GIB, abs=0.05)
    assert report["delay_s"]["p99"] == pytest.approx(
        checkpoint, abs=0.001
    )  # c starts when a has been copied


def test_a_task_waits_behind_one_that_runs_on_its_gpu() -> None:
    rows = tasks(("a", 0, 30), ("b", 10, 1))
    assert run(rows, "suspend", ONE)["delay_s"]["p99"] == 20 * 60
    assert run(rows, "suspend", replace(ONE, side_by_side=2))["delay_s"]["p99"] == 0


def test_nothing_is_parked_beyond_the_memory_of_the_host() -> None:
    scenario = replace(ONE, host_bytes=15 * GIB, parked_share=0.5)
    report = run(tasks(("a", 0, 10), ("a", 70, 10)), "suspend", scenario)
    assert report["host_gib_parked_peak"] == 0
    assert report["immediate_pct"] == 100
