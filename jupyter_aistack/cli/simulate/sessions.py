"""Replaying a trace of notebook tasks under a policy, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.units import GIB, TIB, format_duration
from jupyter_aistack.exceptions import InvalidRequest

from .assumptions import assumptions
from .baselines import Batch, NotebookOS
from .costs import Costs
from .hosts import HostPool
from .lease_policies import ReclaimPolicy, Reservation
from .metrics import IMMEDIATE_SECONDS, Meter, percentiles
from .replay import Replay, SessionPolicy
from .suspend_policy import Suspend
from .trace import HOUR, MINUTE, SessionModel, Task, Trace, make_trace

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
class Scenario:
    """On what, and by which rules, sessions are replayed.

    Attributes:
        gpus: how many there are; None for as many as `reservation` needs so that nobody
            waits.
        gpus_per_host: on each machine.
        gpu_bytes: memory of each GPU.
        host_bytes: memory of each host.
        parked_share: the share of it that parked state may take.
        park_seconds: `suspend` parks a session that has been idle for so long, though
            nobody needs its room.
        side_by_side: how many sessions `suspend` lets run a task on one GPU at once.
        reclaim_seconds: `reservation` takes GPUs back from a session idle for so long;
            None for never.
        idle: when `reclaim` takes leases back.
        lives: what the trace does not tell.
        costs: what starting, loading and moving takes.
    """

    gpus: int | None = None
    gpus_per_host: int = 8
    gpu_bytes: int = 80 * GIB
    host_bytes: int = 2 * TIB
    parked_share: float = 0.6
    park_seconds: float = 20 * MINUTE
    side_by_side: int = 1
    reclaim_seconds: float | None = None
    idle: IdlePolicy = field(default_factory=IdlePolicy)
    lives: SessionModel = field(default_factory=SessionModel)
    costs: Costs = field(default_factory=Costs)

    def floor(self, gpus: int) -> HostPool:
        """So many GPUs, none taken."""
        return HostPool(gpus, per_host=self.gpus_per_host, memory_bytes=self.gpu_bytes)


def _reservation(floor: HostPool, scenario: Scenario) -> SessionPolicy:
    seconds = scenario.reclaim_seconds
    idle = None
    if seconds is not None:
        idle = IdlePolicy(
            badge_seconds=seconds, notice_seconds=seconds, reclaim_seconds=seconds
        )
    return Reservation(floor, scenario.costs, idle)


def _suspend(floor: HostPool, scenario: Scenario) -> SessionPolicy:
    return Suspend(
        floor,
        scenario.costs,
        park_seconds=scenario.park_seconds,
        side_by_side=scenario.side_by_side,
        host_bytes=scenario.host_bytes * scenario.parked_share,
    )


POLICIES: Mapping[str, Callable[[HostPool, Scenario], SessionPolicy]] = {
    "reservation": _reservation,
    "batch": lambda floor, scenario: Batch(
        floor, scenario.costs, seed=scenario.lives.seed
    ),
    "notebookos": lambda floor, scenario: NotebookOS(
        floor, scenario.costs, seed=scenario.lives.seed
    ),
    "reclaim": lambda floor, scenario: ReclaimPolicy(
        floor, scenario.costs, scenario.idle
    ),
    "suspend": _suspend,
}


@dataclass(frozen=True, kw_only=True)
class Result:
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
) -> Result:
    """Replay `tasks` under `policy`, and under `reservation` beside it.

    Args:
        tasks: as :func:`.trace.read_tasks` gives them.
        policy: one of `POLICIES`.
        scenario: everything else.
        source: the trace's file, for what is said of it.
        is_scaled: also replay with states of half and of twice the size.
        progress: is called now and then with the number of tasks that have ended.

    Raises:
        InvalidRequest: for an unknown policy, and GPUs that cannot hold a session.
    """
    check_policy(policy)
    check_scenario(scenario)
    trace = make_trace(tasks, _lives(scenario, 1.0))
    if not trace.sessions:
        longest = format_duration(scenario.lives.longest_seconds)
        raise InvalidRequest(
            f"{source}: every task is longer than {longest}; keep them with --longest 0",
            field="longest",
        )
    gpus = (
        scenario.gpus if scenario.gpus is not None else gpus_reserved(trace, scenario)
    )
    _check_sizes(trace, gpus, scenario, source)
    meter = _replay(trace, policy, gpus, scenario, progress)
    plain = replace(scenario, reclaim_seconds=None)
    is_baseline = policy == "reservation" and scenario.reclaim_seconds is None
    baseline = (
        meter if is_baseline else _replay(trace, "reservation", gpus, plain, None)
    )
    report = _report(trace, policy, gpus, meter, baseline, source)
    if is_scaled:
        report["sensitivity"] = _sensitivity(
            tasks, policy, gpus, scenario, report, progress
        )
    report["assumptions"] = assumptions(policy, scenario)
    return Result(report=report, meters={"reservation": baseline, policy: meter})


def check_policy(policy: str) -> None:
    """Raises InvalidRequest when there is no such policy."""
    if policy not in POLICIES:
        raise InvalidRequest(
            f"policy: {policy!r} is not one of {', '.join(POLICIES)}", field="policy"
        )


def gpus_reserved(trace: Trace, scenario: Scenario) -> int:
    """How many GPUs, in whole hosts, `reservation` needs so that no session waits for
    its own.
    """
    floor = scenario.floor(
        sum(s.gpus for s in trace.sessions)
        + scenario.gpus_per_host * len(trace.sessions)
    )
    Replay(
        trace.sessions, _reservation(floor, replace(scenario, reclaim_seconds=None))
    ).run()
    return len(floor.touched) * scenario.gpus_per_host


def _lives(scenario: Scenario, scale: float) -> SessionModel:
    costs = scenario.costs
    most = (scenario.gpu_bytes - costs.overhead_bytes) / (1 + costs.overhead_share)
    return replace(
        scenario.lives,
        memory_scale=scale * scenario.lives.memory_scale,
        most_bytes=most,
    )


def check_scenario(scenario: Scenario) -> None:
    """Raises InvalidRequest when what it says cannot be."""
    lives = scenario.lives
    if lives.p90_bytes < lives.median_bytes:
        raise InvalidRequest(
            "--memory-p90: is below --memory-median", field="memory_p90"
        )
    if scenario.idle.reclaim_seconds < scenario.idle.notice_seconds:
        raise InvalidRequest(
            "--idle-reclaim: is before --idle-notice", field="idle_reclaim"
        )
    if scenario.gpu_bytes < GIB:
        raise InvalidRequest("--gpu-memory: is below 1GiB", field="gpu_memory")
    if scenario.gpus is not None and scenario.gpus < 1:
        raise InvalidRequest(
            f"--gpus: {scenario.gpus} is not a number of GPUs, at least 1", field="gpus"
        )


def _check_sizes(trace: Trace, gpus: int, scenario: Scenario, source: str) -> None:
    there = min(gpus, scenario.gpus_per_host)
    for session in trace.sessions:
        if session.gpus > there:
            row = next(task.row for task in session.tasks if task.gpus == session.gpus)
            raise InvalidRequest(
                f"{Path(source).name}, row {row}, column num_gpu: {session.gpus} GPUs cannot be had of one host, "
                f"which has {there} here (--gpus, --gpus-per-host)",
                field="num_gpu",
            )


def _replay(
    trace: Trace, policy: str, gpus: int, scenario: Scenario, progress: Progress | None
) -> Meter:
    rules = POLICIES[policy](scenario.floor(gpus), scenario)
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
    long_hours = sum(task.gpus * task.seconds for task in trace.long_tasks) / HOUR
    return {
        "trace": source,
        "policy": policy,
        "gpus": gpus,
        "sessions": len(trace.sessions),
        "tasks": trace.tasks,
        **figures(meter, trace.tasks),
        "reservation_gpu_hours_held": round(baseline.held.total / HOUR, 1),
        "held_of_reservation_pct": round(
            100 * meter.held.total / max(baseline.held.total, 1e-9), 2
        ),
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
    found: JSON = {}
    for scale in SCALES:
        measured = report
        if POLICIES[policy](scenario.floor(1), scenario).uses_memory:
            trace = make_trace(tasks, _lives(scenario, scale))
            measured = figures(
                _replay(trace, policy, gpus, scenario, progress), trace.tasks
            )
        found[f"memory x{scale:g}"] = {name: measured[name] for name in SCALED_FIGURES}
    return found
