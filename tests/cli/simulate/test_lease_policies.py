"""Reservation, reclaim, batch and replicas, replayed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.cli.simulate.costs import Costs
from jupyter_aistack.cli.simulate.scenario import Scenario
from jupyter_aistack.cli.simulate.trace import (
    HOUR,
    MINUTE,
    SessionModel,
)
from jupyter_aistack.core.model.policy import IdlePolicy
from tests.fakes.sessions import open_for, run, tasks

MODEL = SessionModel(
    head_seconds=0, tail_seconds=0, jitter_seconds=0, median_bytes=10e9, p90_bytes=10e9
)


ONE = Scenario(gpus=1, gpus_per_host=1, session_model=MODEL)


TWO = tasks(("a", 0, 10), ("a", 120, 10), ("b", 60, 10))


def test_reservation_holds_from_the_opening_to_the_end() -> None:
    report = run(tasks(("a", 0, 10), ("a", 110, 10)), "reservation", ONE)
    assert report["gpu_hours_held"] == 2.0
    assert report["gpu_hours_executed"] == pytest.approx(20 / 60, abs=0.05)
    assert report["immediate_pct"] == 100
    assert report["held_of_reservation_pct"] == 100


def test_reservation_lets_the_second_session_wait_for_the_end_of_the_first() -> None:
    report = run(TWO, "reservation", ONE)
    assert report["delay_s"]["p99"] == 70 * 60  # b comes at 60 min, a ends at 130
    assert report["gpu_hours_held"] == pytest.approx(140 / 60, abs=0.05)
    assert report["peak_gpus"] == 1


def test_reservation_with_reclaim_gives_gpus_back_and_pays_for_the_lost_state() -> None:
    report = run(TWO, "reservation", replace(ONE, reclaim_seconds=30 * MINUTE))
    assert report["gpu_hours_held"] == pytest.approx((40 + 10 + 10) / 60, abs=0.05)
    assert report["resumes_per_task"] == pytest.approx(1 / 3, abs=1e-3)
    assert report["delay_s"]["p99"] == 40  # 10 GB at 0.25 GB/s


def test_reclaim_ends_an_idle_lease_when_its_notice_is_over() -> None:
    idle = IdlePolicy(
        badge_seconds=60, notice_seconds=20 * MINUTE, reclaim_seconds=25 * MINUTE
    )
    report = run(
        tasks(("a", 0, 10), ("b", 20, 10)),
        "reclaim",
        replace(ONE, idle=idle, session_model=open_for(HOUR)),
    )
    assert report["delay_s"]["p99"] == pytest.approx(
        15 * 60, abs=0.01
    )  # a: idle from 10 to 35 min


def test_reclaim_leaves_a_lease_alone_that_was_used_after_its_notice() -> None:
    idle = IdlePolicy(
        badge_seconds=60, notice_seconds=20 * MINUTE, reclaim_seconds=25 * MINUTE
    )
    report = run(
        tasks(("a", 0, 10), ("a", 32, 10), ("b", 33, 1)),
        "reclaim",
        replace(ONE, idle=idle),
    )
    assert report["resumes_per_task"] == 0
    assert report["delay_s"]["p99"] == 9 * 60  # a ends at 42 min


def test_a_long_silent_task_is_never_idle() -> None:
    report = run(tasks(("a", 0, 600), ("b", 10, 1)), "reclaim", ONE)
    assert report["resumes_per_task"] == 0
    assert report["delay_s"]["p99"] == 590 * 60


def test_batch_starts_a_container_and_loads_state_for_every_task() -> None:
    costs = Costs(start_seconds=(20.0, 20.0))
    report = run(tasks(("a", 0, 10), ("a", 20, 10)), "batch", replace(ONE, costs=costs))
    assert report["delay_s"]["p50"] == report["delay_s"]["p99"] == 60
    assert report["gpu_hours_held"] == pytest.approx(22 / 60, abs=0.05)
    assert report["resumes_per_task"] == 1


def test_batch_is_first_come_first_served() -> None:
    rows = tasks(("a", 0, 10, 1), ("b", 1, 10, 2), ("c", 2, 10, 1))
    costs = Costs(start_seconds=(0.0, 0.0), load_rate=1e18)
    report = run(rows, "batch", replace(ONE, gpus=2, gpus_per_host=2, costs=costs))
    assert report["delay_s"]["p99"] == pytest.approx(
        18 * 60
    )  # c waits for b, though a GPU is free
