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
    SessionModel,
    make_trace,
)
from jupyter_aistack.exceptions import InvalidRequest
from tests.fakes.sessions import ONE, TWO, open_for, run, tasks


def test_notebookos_moves_a_replica_when_its_hosts_are_busy() -> None:
    scenario = replace(ONE, gpus=2)
    trace = make_trace(tasks(("a", 0, 60), ("b", 1, 1), ("c", 30, 10)), open_for(HOUR))
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


def test_sensitivity_shows_larger_states_take_longer_to_bring_back() -> None:
    report = simulate(tasks(("a", 0, 10), ("a", 70, 10)), "suspend", ONE).report
    half, twice = (
        report["sensitivity"][name]["delay_s"]["p99"]
        for name in ("memory x0.5", "memory x2")
    )
    assert half == pytest.approx(0.15 + 5 / 5.3, abs=0.001)
    assert twice == pytest.approx(0.15 + 20 / 5.3, abs=0.001)


def test_reservation_gets_as_many_gpus_as_it_needs_when_none_are_given() -> None:
    rows = tasks(("a", 0, 10, 4), ("b", 0, 10, 4), ("c", 0, 10, 1))
    report = run(rows, "reservation", replace(ONE, gpus=None, gpus_per_host=4))
    assert report["gpus"] == 12
    assert report["immediate_pct"] == 100


def test_the_same_seed_gives_the_same_report() -> None:
    scenario = Scenario(gpus=2, gpus_per_host=2)
    entry, other = (simulate(TWO, "suspend", scenario).report for _ in range(2))
    assert entry == other
    assert (
        entry
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
