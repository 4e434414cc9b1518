"""Replaying a trace of notebook tasks under a policy, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.units import GIB, format_duration
from jupyter_aistack.exceptions import InvalidRequest

from .assumptions import assumptions
from .metrics import IMMEDIATE_SECONDS, Meter, percentiles
from .replay import Replay
from .scenario import POLICIES, Scenario, check_policy, check_scenario, reservation
from .trace import HOUR, Task, Trace, make_trace

JSON = dict[str, Any]
Progress = Callable[[int], None]
SCALES = (0.5, 2.0)
SCALED_FIGURES = (
    "gpu_hours_held",
    "immediate_pct",
    "within_1s_pct",
    "delay_s",
    "resumes_per_task",
    "host_gib_parked_peak",
)


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """A report, and the measurements that a plot is drawn from."""

    report: JSON
    meters: Mapping[str, Meter]


def simulate(
    tasks: list[Task],
    policy: str,
    scenario: Scenario,
    *,
    source: str = "trace",
    is_scaled: bool = True,
    progress: Progress | None = None,
) -> SimulationResult:
    """Replay `tasks` under `policy`, and under `reservation` beside it.

    Args:
        tasks: as :func:`.trace.read_tasks` gives them.
        policy: one of `POLICIES`.
        scenario: everything else.
        source: the trace's file, as it is shown in the report.
        is_scaled: also replay with states of half and of twice the size.
        progress: is called now and then with the number of tasks that have ended.

    Raises:
        InvalidRequest: for an unknown policy, and GPUs that cannot hold a session.
    """
    check_policy(policy)
    check_scenario(scenario)
    trace = _make_trace(tasks, scenario, source)
    gpus = scenario.gpus
    if gpus is None:
        gpus = gpus_reserved(trace, scenario)
    _check_sizes(trace, gpus, scenario, source)

    meter = _replay(trace, policy, gpus, scenario, progress)
    baseline = meter
    if policy != "reservation" or scenario.reclaim_seconds is not None:
        plain = replace(scenario, reclaim_seconds=None)
        baseline = _replay(trace, "reservation", gpus, plain, None)

    report = _report(trace, policy, gpus, meter, baseline, source)
    if is_scaled:
        sizes = _sensitivity(tasks, policy, gpus, scenario, report, progress)
        report["sensitivity"] = sizes
    report["assumptions"] = assumptions(policy, scenario)
    return SimulationResult(
        report=report, meters={"reservation": baseline, policy: meter}
    )


def gpus_reserved(trace: Trace, scenario: Scenario) -> int:
    """How many GPUs, in whole hosts, `reservation` needs so that no session waits for
    its own.
    """
    # A host of its own for what each session may leave over of a host.
    needed = sum(session.gpus for session in trace.sessions)
    spare = scenario.gpus_per_host * len(trace.sessions)
    pool = scenario.pool(needed + spare)
    rules = reservation(pool, replace(scenario, reclaim_seconds=None))
    Replay(trace.sessions, rules).run()
    return len(pool.touched) * scenario.gpus_per_host


def _make_trace(tasks: list[Task], scenario: Scenario, source: str) -> Trace:
    trace = make_trace(tasks, scenario.scaled_model(1.0))
    if not trace.sessions:
        longest = format_duration(scenario.session_model.longest_seconds)
        raise InvalidRequest(
            f"{source}: every task is longer than {longest}; keep them with --longest 0",
            field="longest",
        )
    return trace


def _check_sizes(trace: Trace, gpus: int, scenario: Scenario, source: str) -> None:
    """Raises InvalidRequest naming the row of a session that no host can hold."""
    on_a_host = min(gpus, scenario.gpus_per_host)
    for session in trace.sessions:
        if session.gpus > on_a_host:
            row = next(task.row for task in session.tasks if task.gpus == session.gpus)
            raise InvalidRequest(
                f"{Path(source).name}, row {row}, column num_gpu: {session.gpus} GPUs cannot be had of one host, "
                f"which has {on_a_host} here (--gpus, --gpus-per-host)",
                field="num_gpu",
            )


def _replay(
    trace: Trace, policy: str, gpus: int, scenario: Scenario, progress: Progress | None
) -> Meter:
    rules = POLICIES[policy](scenario.pool(gpus), scenario)
    run = Replay(trace.sessions, rules, progress)
    meter = run.run()
    if run.ended != trace.tasks:
        raise RuntimeError(f"{policy}: {trace.tasks - run.ended} tasks were never run")
    return meter


def figures(meter: Meter, tasks: int) -> JSON:
    """What was measured, in the units of a report."""
    return {
        "gpu_hours_held": round(meter.held.total / HOUR, 1),
        "gpu_hours_occupied": round(meter.occupied.total / HOUR, 1),
        "gpu_hours_executed": round(meter.running.total / HOUR, 1),
        "immediate_pct": round(meter.share_within(IMMEDIATE_SECONDS), 2),
        "within_1s_pct": round(meter.share_within(1.0), 2),
        "delay_s": percentiles(meter.delays),
        "resumes_per_task": round(meter.resumes / max(1, tasks), 4),
        "peak_gpus": int(meter.occupied.peak),
        "host_gib_parked_peak": round(meter.host_parked_peak / GIB, 1),
        "all_hosts_gib_parked_peak": round(meter.parked.peak / GIB, 1),
    }


def _report(
    trace: Trace, policy: str, gpus: int, meter: Meter, baseline: Meter, source: str
) -> JSON:
    share = meter.held.total / max(baseline.held.total, 1e-9)
    long_hours = sum(task.gpus * task.seconds for task in trace.long_tasks) / HOUR
    return {
        "trace": source,
        "policy": policy,
        "gpus": gpus,
        "sessions": len(trace.sessions),
        "tasks": trace.tasks,
        **figures(meter, trace.tasks),
        "reservation_gpu_hours_held": round(baseline.held.total / HOUR, 1),
        "held_of_reservation_pct": round(100 * share, 2),
        "long_tasks": {
            "tasks": len(trace.long_tasks),
            "gpu_hours": round(long_hours, 1),
        },
    }


def _sensitivity(
    tasks: list[Task],
    policy: str,
    gpus: int,
    scenario: Scenario,
    report: JSON,
    progress: Progress | None,
) -> JSON:
    """The main figures with states of half and of twice the size."""
    uses_memory = POLICIES[policy](scenario.pool(1), scenario).uses_memory
    sizes: JSON = {}
    for scale in SCALES:
        measured = report
        if uses_memory:
            trace = make_trace(tasks, scenario.scaled_model(scale))
            meter = _replay(trace, policy, gpus, scenario, progress)
            measured = figures(meter, trace.tasks)
        sizes[f"memory x{scale:g}"] = {name: measured[name] for name in SCALED_FIGURES}
    return sizes
