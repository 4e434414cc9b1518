"""``jupyter aistack simulate sessions``: options in, one replay, its report out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.units import parse_bytes, parse_duration
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.standard_streams import tell

from .costs import GB, Costs
from .output import check_plot, lines, plot
from .scenario import POLICIES, Scenario, check_policy, check_scenario
from .sessions import simulate
from .trace import SessionModel, read_tasks

MOST_GPUS = 100_000


def add_sessions_parser(verbs: Any) -> None:
    """Add ``sessions`` to the verbs of ``simulate``."""
    text = (
        "Replay notebook tasks under a policy: what it holds, and how long cells wait."
    )
    parser = verbs.add_parser("sessions", help=text, description=text)
    parser.set_defaults(run=run_sessions)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object as the last line")
    add(
        "--trace",
        type=Path,
        required=True,
        help="CSV with num_gpu, submit_time and duration (minutes), by session",
    )
    add(
        "--policy",
        default="suspend",
        help=f"one of {', '.join(POLICIES)}; default %(default)s",
    )
    add(
        "--gpus",
        help="how many GPUs there are; default: what reservation needs so that no session waits",
    )
    add(
        "--plot",
        type=Path,
        help="draw GPUs over time to this picture (.png, .svg, .pdf)",
    )
    add(
        "--no-sensitivity",
        action="store_true",
        help="leave out the replays with states of half and twice the size",
    )
    add("--seed", default="0", help="of all that is drawn; default %(default)s")
    _add_session_model(parser.add_argument_group("what the trace does not tell"))
    _add_machines(parser.add_argument_group("machines"))
    _add_rules(parser.add_argument_group("policies and costs"))


def _add_session_model(group: Any) -> None:
    add = group.add_argument
    add(
        "--memory-median",
        default="8GB",
        help="state on each GPU, median; default %(default)s",
    )
    add(
        "--memory-p90",
        default="31GB",
        help="state on each GPU, 90th percentile; default %(default)s",
    )
    add(
        "--head",
        default="30min",
        help="mean time from opening to first task; default %(default)s",
    )
    add(
        "--tail",
        default="30min",
        help="time from last task to end of session; default %(default)s",
    )
    add(
        "--longest",
        default="24h",
        help="leave longer tasks out and count them apart, 0 for none; default %(default)s",
    )
    add(
        "--unused",
        default="0",
        help="share of reserved GPU-hours in sessions without a task; default %(default)s",
    )
    add(
        "--jitter",
        default="60s",
        help="spread submissions over this much, 0 for not at all; default %(default)s",
    )


def _add_machines(group: Any) -> None:
    add = group.add_argument
    add("--gpus-per-host", default="8", help="default %(default)s")
    add("--gpu-memory", default="80GiB", help="of each GPU; default %(default)s")
    add("--host-memory", default="2TiB", help="of each host; default %(default)s")
    add(
        "--parked-share",
        default="0.6",
        help="share of it that suspended state may take; default %(default)s",
    )


def _add_rules(group: Any) -> None:
    add = group.add_argument
    idle = IdlePolicy()
    costs = Costs()
    add(
        "--park-after",
        default="20min",
        help="suspend: suspend a session idle for so long; default %(default)s",
    )
    add(
        "--side-by-side",
        default="1",
        help="suspend: sessions that may run on one GPU at once; default %(default)s",
    )
    add(
        "--reclaim-after",
        help="reservation: reclaim GPUs from sessions idle for so long; default: never",
    )
    add(
        "--idle-notice",
        default=f"{idle.notice_seconds:g}s",
        help="reclaim: notice after; default %(default)s",
    )
    add(
        "--idle-reclaim",
        default=f"{idle.reclaim_seconds:g}s",
        help="reclaim: end after; default %(default)s",
    )
    add(
        "--checkpoint-seconds",
        default=f"{costs.checkpoint_seconds:g}",
        help="fixed part; default %(default)s",
    )
    add(
        "--checkpoint-gbps",
        default=f"{costs.checkpoint_rate / GB:g}",
        help="GB/s on each GPU; default %(default)s",
    )
    add(
        "--restore-seconds",
        default=f"{costs.restore_seconds:g}",
        help="fixed part; default %(default)s",
    )
    add(
        "--restore-gbps",
        default=f"{costs.restore_rate / GB:g}",
        help="GB/s on each GPU; default %(default)s",
    )
    add(
        "--load-gbps",
        default=f"{costs.load_rate / GB:g}",
        help="GB/s from shared storage; default %(default)s",
    )


def run_sessions(options: argparse.Namespace) -> int:
    """Replay, and print the report; 0."""
    check_policy(options.policy)
    scenario = scenario_of(options)
    check_scenario(scenario)
    if options.plot is not None:
        check_plot(options.plot)
    tasks = read_tasks(options.trace)
    progress = _progress(len(tasks))
    try:
        result = simulate(
            tasks,
            options.policy,
            scenario,
            source=str(options.trace),
            is_scaled=not options.no_sensitivity,
            progress=progress,
        )
    finally:
        if progress is not None:
            tell("\r\x1b[K", end="")
    if options.plot is not None:
        plot(result.meters, result.report, options.plot)
    print(
        json.dumps(result.report) if options.json else "\n".join(lines(result.report))
    )
    return 0


def scenario_of(options: argparse.Namespace) -> Scenario:
    """What the options say.

    Raises:
        InvalidRequest: naming the option and what is allowed.
    """
    reclaim_seconds = None
    if options.reclaim_after is not None:
        reclaim_seconds = _duration(options, "reclaim_after")
    return Scenario(
        gpus=None if options.gpus is None else _whole(options, "gpus"),
        gpus_per_host=_whole(options, "gpus_per_host"),
        gpu_bytes=_bytes(options, "gpu_memory"),
        host_bytes=_bytes(options, "host_memory"),
        parked_share=_number(options, "parked_share", 0.0, 1.0),
        park_seconds=_duration(options, "park_after"),
        side_by_side=_whole(options, "side_by_side"),
        reclaim_seconds=reclaim_seconds,
        idle=IdlePolicy(
            notice_seconds=_duration(options, "idle_notice"),
            reclaim_seconds=_duration(options, "idle_reclaim"),
        ),
        session_model=_session_model(options),
        costs=Costs(
            checkpoint_seconds=_number(options, "checkpoint_seconds", 0.0),
            checkpoint_rate=_rate(options, "checkpoint_gbps"),
            restore_seconds=_number(options, "restore_seconds", 0.0),
            restore_rate=_rate(options, "restore_gbps"),
            load_rate=_rate(options, "load_gbps"),
        ),
    )


def _session_model(options: argparse.Namespace) -> SessionModel:
    longest = _or_nothing(options, "longest")
    return SessionModel(
        median_bytes=_bytes(options, "memory_median"),
        p90_bytes=_bytes(options, "memory_p90"),
        head_seconds=_or_nothing(options, "head"),
        tail_seconds=_or_nothing(options, "tail"),
        longest_seconds=longest or math.inf,
        jitter_seconds=_or_nothing(options, "jitter"),
        unused_share=_number(options, "unused", 0.0, 0.95),
        seed=int(_number(options, "seed", 0.0, 2**63)),
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(
    options: argparse.Namespace, name: str, least: float, most: float = math.inf
) -> float:
    text = getattr(options, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most or math.isinf(value):
        allowed = f"{least:g} to {most:g}"
        if math.isinf(most):
            allowed = f"at least {least:g}"
        raise InvalidRequest(
            f"{_flag(name)}: {text!r} is not a number, {allowed}", field=name
        )
    return value


def _whole(options: argparse.Namespace, name: str) -> int:
    text = getattr(options, name)
    if not text.strip().isdecimal() or not 1 <= int(text) <= MOST_GPUS:
        raise InvalidRequest(
            f"{_flag(name)}: {text!r} is not a whole number, 1 to {MOST_GPUS}",
            field=name,
        )
    return int(text)


def _rate(options: argparse.Namespace, name: str) -> float:
    return _number(options, name, 1e-3) * GB


def _bytes(options: argparse.Namespace, name: str) -> int:
    amount = parse_bytes(getattr(options, name), field=_flag(name))
    if amount < 1:
        raise InvalidRequest(f"{_flag(name)}: ask for more than zero bytes", field=name)
    return amount


def _duration(options: argparse.Namespace, name: str) -> float:
    return parse_duration(getattr(options, name), field=_flag(name))


def _or_nothing(options: argparse.Namespace, name: str) -> float:
    if getattr(options, name).strip() in ("0", "0s", "0min", "0h"):
        return 0.0
    return _duration(options, name)


def _progress(tasks: int) -> Callable[[int], None] | None:
    """Says on a terminal how far a replay is; None where it would not be seen."""
    if not sys.stderr.isatty():
        return None

    def show(done: int) -> None:
        tell(f"\r{done:,} of {tasks:,} tasks\x1b[K", end="")

    return show
