"""Replays of small traces made by hand, with the figures that follow from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_aistack.cli.simulate.baselines import NotebookOS
from jupyter_aistack.cli.simulate.costs import Costs
from jupyter_aistack.cli.simulate.replay import Replay
from jupyter_aistack.cli.simulate.scenario import POLICIES, Scenario
from jupyter_aistack.cli.simulate.sessions import simulate
from jupyter_aistack.cli.simulate.trace import (
    HOUR,
    MINUTE,
    SessionModel,
    Task,
    make_trace,
)
from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest

MODEL = SessionModel(
    head_seconds=0, tail_seconds=0, jitter_seconds=0, median_bytes=10e9, p90_bytes=10e9
)
ONE = Scenario(gpus=1, gpus_per_host=1, session_model=MODEL)
CHECKPOINT = 0.13 + 10 / 3
RESTORE = 0.15 + 10 / 5.3


def tasks(
    *rows: tuple[str, float, float] | tuple[str, float, float, int],
) -> list[Task]:
    """Tasks of (session, submitted, minutes, GPUs), times in minutes."""
    return [
        Task(
            row=line,
            session=row[0],
            submitted_at=row[1] * MINUTE,
            seconds=row[2] * MINUTE,
            gpus=(*row, 1)[3],
        )
        for line, row in enumerate(rows, 2)
    ]


def run(rows: list[Task], policy: str, scenario: Scenario) -> dict:
    return simulate(rows, policy, scenario, is_scaled=False).report


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
        replace(ONE, idle=idle, session_model=_open_for(HOUR)),
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


def test_notebookos_moves_a_replica_when_its_hosts_are_busy() -> None:
    scenario = replace(ONE, gpus=2)
    trace = make_trace(tasks(("a", 0, 60), ("b", 1, 1), ("c", 30, 10)), _open_for(HOUR))
    rules = NotebookOS(
        scenario.pool(2), Costs(start_seconds=(20.0, 20.0)), seed=0, replicas=1
    )
    meter = Replay(trace.sessions, rules).run()
    assert list(meter.delays) == [
        0,
        0,
        60,
    ]  # c is at home beside a, and moves to where b was: 20 s, and 10 GB to load
    assert meter.resumes == 1


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
        replace(ONE, session_model=_open_for(MINUTE)),
    )
    assert report["immediate_pct"] == 100
    assert report["resumes_per_task"] == 0
    assert report["gpu_hours_held"] > report["gpu_hours_occupied"]


def test_the_least_recently_used_session_makes_room() -> None:
    session_model = replace(
        _open_for(HOUR), median_bytes=30e9, p90_bytes=30e9
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


def test_sensitivity_shows_larger_states_take_longer_to_bring_back() -> None:
    report = simulate(tasks(("a", 0, 10), ("a", 70, 10)), "suspend", ONE).report
    half, twice = (
        report["sensitivity"][name]["delay_s"]["p99"]
        for name in ("memory x0.5", "memory x2")
    )
    assert half == pytest.approx(0.15 + 5 / 5.3, abs=0.001)
    assert twice == pytest.approx(0.15 + 20 / 5.3, abs=0.001)


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


def test_reservation_gets_as_many_gpus_as_it_needs_when_none_are_given() -> None:
    rows = tasks(("a", 0, 10, 4), ("b", 0, 10, 4), ("c", 0, 10, 1))
    report = run(rows, "reservation", replace(ONE, gpus=None, gpus_per_host=4))
    assert report["gpus"] == 12
    assert report["immediate_pct"] == 100


def test_the_same_seed_gives_the_same_report() -> None:
    scenario = Scenario(gpus=2, gpus_per_host=2)
    one, other = (simulate(TWO, "suspend", scenario).report for _ in range(2))
    assert one == other
    assert (
        one
        != simulate(
            TWO, "suspend", replace(scenario, session_model=SessionModel(seed=1))
        ).report
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_larger_than_a_host_is_refused_by_row(policy: str) -> None:
    with pytest.raises(InvalidRequest, match=r"t\.csv, row 3, column num_gpu: 4 GPUs"):
        simulate(
            tasks(("a", 0, 1), ("a", 2, 1, 4)),
            policy,
            replace(ONE, gpus=2),
            source="t.csv",
        )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_report_has_the_names_that_were_promised(policy: str) -> None:
    report = run(TWO, policy, ONE)
    promised = (
        "gpu_hours_held gpu_hours_executed immediate_pct within_1s_pct delay_s resumes_per_task peak_gpus "
        "host_gib_parked_peak tasks sessions policy gpus assumptions"
    )
    assert set(promised.split()) <= report.keys()
    assert list(report["delay_s"]) == ["p50", "p75", "p90", "p95", "p99"]
    assert all(
        isinstance(sentence, str) and sentence.endswith(".")
        for sentence in report["assumptions"]
    )


def _open_for(seconds: float) -> SessionModel:
    return replace(MODEL, tail_seconds=seconds)
