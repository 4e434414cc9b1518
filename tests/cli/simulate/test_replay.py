"""What must hold for whatever is replayed under whatever policy."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.cli.simulate.replay import Notebook, Replay
from jupyter_aistack.cli.simulate.scenario import POLICIES, Scenario
from jupyter_aistack.cli.simulate.suspend_policy import SuspensionPolicy
from jupyter_aistack.cli.simulate.trace import (
    HOUR,
    MINUTE,
    SessionModel,
    Task,
    Trace,
    make_trace,
)
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.units import GIB

GPUS, PER_HOST = 6, 3

tasks_of_one = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.sampled_from([0, 1, 5, 45, 300]),
        st.integers(1, PER_HOST),
    ),
    min_size=1,
    max_size=5,
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rows, line = [], 2
    for number, wishes in enumerate(
        draw(st.lists(tasks_of_one, min_size=1, max_size=9))
    ):
        at = float(draw(st.integers(0, 300)))
        for think, minutes, gpus in wishes:
            at += think
            seconds = minutes * MINUTE
            rows.append(
                Task(
                    row=line,
                    session=f"s{number}",
                    submitted_at=at * MINUTE,
                    seconds=seconds,
                    gpus=gpus,
                )
            )
            at, line = at + minutes, line + 1
    return make_trace(
        rows,
        SessionModel(
            seed=draw(st.integers(0, 3)),
            most_bytes=75e9,
            median_bytes=20e9,
            p90_bytes=60e9,
        ),
    )


scenarios = st.builds(
    Scenario,
    gpus=st.just(GPUS),
    gpus_per_host=st.just(PER_HOST),
    park_seconds=st.sampled_from([60.0, 1200.0]),
    side_by_side=st.integers(1, 2),
    host_bytes=st.sampled_from([40 * GIB, 2048 * GIB]),
    reclaim_seconds=st.sampled_from([None, 1800.0]),
)


class Watched(Replay):
    """A replay that keeps which tasks began when."""

    def __init__(self, trace: Trace, policy: str, scenario: Scenario) -> None:
        super().__init__(
            trace.sessions,
            POLICIES[policy](scenario.pool(scenario.gpus or GPUS), scenario),
        )
        self.began: list[tuple[float, Notebook, int]] = []
        self.ran: list[tuple[float, float, int]] = []

    def _start(self, notebook: Notebook, now: float) -> None:
        self.began.append((now, notebook, notebook.task.row))
        self.ran.append((now, now + notebook.task.seconds, notebook.task.gpus))
        super()._start(notebook, now)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None)
@given(trace=traces(), scenario=scenarios)
def test_every_task_runs_once_and_in_the_order_of_its_session(
    policy: str, trace: Trace, scenario: Scenario
) -> None:
    replay = Watched(trace, policy, scenario)
    meter = replay.run()
    of_session: dict[int, list[int]] = {}
    for _, notebook, row in replay.began:
        of_session.setdefault(notebook.session.number, []).append(row)
    assert of_session == {
        s.number: [task.row for task in s.tasks] for s in trace.sessions
    }
    assert len(meter.delays) == replay.ended == trace.tasks
    assert all(delay >= 0 for delay in meter.delays)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None)
@given(trace=traces(), scenario=scenarios)
def test_never_more_gpus_than_there_are_and_all_are_given_back(
    policy: str, trace: Trace, scenario: Scenario
) -> None:
    meter = Watched(trace, policy, scenario).run()
    assert meter.occupied.peak <= GPUS
    assert min(meter.occupied.values, default=0) >= 0
    assert (
        meter.held.value,
        meter.occupied.value,
        meter.running.value,
        meter.parked.value,
    ) == (0, 0, 0, 0)
    executed = sum(
        task.gpus * task.seconds for session in trace.sessions for task in session.tasks
    )
    assert meter.running.total == pytest.approx(executed)
    assert meter.held.total >= executed - 1e-6 * HOUR
    assert meter.held.total >= meter.occupied.total - 1e-6 * HOUR


class Checked(SuspensionPolicy):
    """Suspension that looks at itself whenever a task begins, and at each step of a
    lease.
    """

    def _run(self, notebook: Notebook, now: float, at: float) -> None:
        self.check()
        assert _state(notebook) is LeaseState.ACTIVE
        super()._run(notebook, now, at)

    def _resume(self, notebook: Notebook, now: float) -> float:
        before = _state(notebook)
        at = super()._resume(notebook, now)
        assert before is LeaseState.SUSPENDED
        assert at >= now + self.costs.restore(notebook.state_bytes)
        return at

    def check(self) -> None:
        residents = self._residents(self.pool.host_of)
        for device in self.pool.host_of:
            pieces = [p for n in residents for p in n.slices if p.device_id == device]
            assert (
                sum(slice_.memory_bytes for slice_ in pieces) <= self.pool.memory_bytes
            )
            assert self._running[device] <= self.side_by_side
        assert self.meter.host_parked_peak <= self.host_bytes


def _state(notebook: Notebook) -> LeaseState | None:
    lease: Lease | None = notebook.lease
    return lease.state if lease is not None else None


@settings(max_examples=40, deadline=None)
@given(trace=traces(), scenario=scenarios)
def test_suspension_keeps_within_memory_and_takes_its_time(
    trace: Trace, scenario: Scenario
) -> None:
    policy = Checked(
        scenario.pool(GPUS),
        scenario.costs,
        park_seconds=scenario.park_seconds,
        side_by_side=scenario.side_by_side,
        host_bytes=scenario.host_bytes * scenario.parked_share,
    )
    meter = Replay(trace.sessions, policy).run()
    policy.check()
    slow = (
        sorted(meter.delays)[len(meter.delays) - meter.resumes :]
        if meter.resumes
        else array("d")
    )
    assert all(delay > scenario.costs.restore(0) - 1e-6 for delay in slow)


@settings(max_examples=20, deadline=None)
@given(trace=traces())
def test_tasks_of_all_gpus_never_run_at_once(trace: Trace) -> None:
    scenario = Scenario(gpus=PER_HOST, gpus_per_host=PER_HOST)
    replay = Watched(trace, "suspend", scenario)
    replay.run()
    whole_gpus = sorted(
        (start, end) for start, end, gpus in replay.ran if gpus == PER_HOST
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(whole_gpus))
