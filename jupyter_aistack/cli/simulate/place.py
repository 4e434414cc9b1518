"""``simulate place``: a cluster is filled with arrivals, one by one, and what is
allocated is shown.

Nothing departs, and a refused demand is gone: the hardest case for a placement policy,
and the case that published policies are compared by.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_aistack.core.placement.demand import WHOLE, Demand, Node, PlacementTarget
from jupyter_aistack.core.placement.packing import DEFAULT_POLICY, POLICIES, Packer
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.standard_streams import tell

from .csv_io import (
    Arrival,
    read_arrivals,
    read_history,
    read_nodes,
    write_rows,
    write_whole,
)
from .output import check_plot

LOADS = (90, 100, 130)
"""Arrived GPU demand, in per cent of the cluster's GPUs, at which the allocation is
reported.
"""
QUIET_SECONDS = 2.0
"""How long a run may take before progress is shown."""
EVERY_SECONDS = 0.5
CHECK_EVERY = 64
CURVE_POINTS = 400


@dataclass(kw_only=True)
class PlacementResult:
    """What became of the arrivals.

    Attributes:
        targets: for each arrival where it went; None when it was refused.
        curve: (arrived, allocated) GPUs in per cent of the cluster's, after each
            arrival that asked for GPUs.
        refused_for: how many were refused, by reason.
        refused_gpus: GPUs that the refused asked for.
        seconds: spent on decisions.
    """

    targets: list[PlacementTarget | None] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    refused_for: Counter[str] = field(default_factory=Counter)
    refused_gpus: float = 0.0
    seconds: float = 0.0

    def at(self, load_pct: float) -> float | None:
        """Per cent of all GPUs allocated when the arrived demand passed that load; None
        when it never did.
        """
        for arrived, allocated in self.curve:
            if arrived >= load_pct:
                return allocated
        return None


def replay(
    nodes: Sequence[Node],
    arrivals: Sequence[Demand],
    *,
    policy: str = DEFAULT_POLICY,
    history: Sequence[Demand] = (),
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> PlacementResult:
    """Place the arrivals on the empty nodes, in the given order.

    Args:
        nodes: the cluster.
        arrivals: what comes, in order.
        policy: one of `POLICIES`.
        history: demands known beforehand.
        clock: measures the time of the decisions.
        progress: called now and then with the number of arrivals that have been placed
            or refused.

    Raises:
        InvalidRequest: on an unknown policy.
    """
    result = PlacementResult()
    started = clock()
    packer = Packer(nodes, policy=policy, history=history)
    capacity = sum(node.gpus for node in nodes) * WHOLE
    arrived = 0
    allocated = 0
    for done, demand in enumerate(arrivals):
        if done % CHECK_EVERY == 0:
            progress(done)
        target = packer.place(demand)
        milli = demand.gpus * demand.share_milli
        if target is None:
            result.refused_for[packer.cluster.why_not(demand)] += 1
            result.refused_gpus += demand.gpu_amount
        result.targets.append(target)
        arrived += milli
        allocated += milli if target is not None else 0
        if milli and capacity:
            result.curve.append((100 * arrived / capacity, 100 * allocated / capacity))
    result.seconds = clock() - started
    progress(len(arrivals))
    return result


def add_place_parser(verbs: Any) -> argparse.ArgumentParser:
    """Add ``place`` to the subcommands of ``simulate``."""
    text = "Place arrivals on a cluster one by one, and show how much of it a policy allocates."
    parser: argparse.ArgumentParser = verbs.add_parser(
        "place", help=text, description=text
    )
    parser.add_argument(
        "--nodes",
        type=Path,
        required=True,
        help="CSV: sn,cpu_milli,memory_mib,gpu,model",
    )
    columns = "order,name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec"
    parser.add_argument("--arrivals", type=Path, required=True, help=f"CSV: {columns}")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="CSV to write: order,node,gpus (empty node: refused)",
    )
    parser.add_argument(
        "--history",
        type=Path,
        help="CSV of earlier tasks, from which the mix is learnt beforehand",
    )
    parser.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        help=f"{', '.join(POLICIES)} (default {DEFAULT_POLICY})",
    )
    parser.add_argument(
        "--plot", type=Path, help="picture to write: allocation over arrived demand"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    parser.set_defaults(run=run_place)
    return parser


def run_place(options: argparse.Namespace) -> int:
    """``simulate place`` from the command line. Nothing is written unless all input is
    sound.
    """
    _check_numpy()
    if options.plot:
        check_plot(options.plot)
    draw = _drawing() if options.plot else None
    nodes = read_nodes(options.nodes)
    arrivals = read_arrivals(options.arrivals)
    history = read_history(options.history) if options.history else []
    progress = _progress(len(arrivals))
    demands = [arrival.demand for arrival in arrivals]
    result = replay(
        nodes, demands, policy=options.policy, history=history, progress=progress
    )
    write_rows(
        options.out, [("order", "node", "gpus"), *_placements(nodes, arrivals, result)]
    )
    if draw:
        write_whole(options.plot, lambda part: draw(result, options.policy, part))
    report = summary(nodes, arrivals, result, options.policy)
    text = "\n".join(_report_lines(report))
    if options.json:
        tell(text)
        print(json.dumps(report))
    else:
        print(text)
    return 0


def summary(
    nodes: Sequence[Node],
    arrivals: Sequence[Arrival],
    result: PlacementResult,
    policy: str,
) -> dict[str, Any]:
    """What the replay showed, as JSON; percentages are of the cluster's GPUs."""
    arrived, allocated = result.curve[-1] if result.curve else (0.0, 0.0)
    refused = result.refused_for.total()
    rate = round(len(arrivals) / result.seconds, 1) if result.seconds else None
    return {
        "policy": policy,
        "nodes": len(nodes),
        "gpus": sum(node.gpus for node in nodes),
        "arrivals": len(arrivals),
        "placed": len(arrivals) - refused,
        "refused": refused,
        "refused_gpus": round(result.refused_gpus, 3),
        "refused_for": dict(result.refused_for.most_common()),
        "arrived_pct": round(arrived, 4),
        "allocated_pct": round(allocated, 4),
        "allocated_pct_at_load": _allocated_at_loads(result),
        "decisions_per_second": rate,
        "seconds": round(result.seconds, 3),
    }


def _allocated_at_loads(result: PlacementResult) -> dict[str, float]:
    allocated = {str(load): result.at(load) for load in LOADS}
    return {
        load: round(percent, 4)
        for load, percent in allocated.items()
        if percent is not None
    }


def _report_lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{report['policy']}: {report['placed']} of {report['arrivals']} arrivals placed on {report['nodes']} nodes"
        f" with {report['gpus']} GPUs, {report['refused']} refused",
        *(
            f"allocated {allocated:.2f} % of the GPUs when {load} % had been asked for"
            for load, allocated in report["allocated_pct_at_load"].items()
        ),
        f"allocated {report['allocated_pct']:.2f} % at the end, when {report['arrived_pct']:.2f} % had been asked for",
        *(
            f"refused, {reason}: {count}"
            for reason, count in report["refused_for"].items()
        ),
    ]
    if report["decisions_per_second"]:
        lines.append(f"{report['decisions_per_second']:.0f} decisions a second")
    return lines


def _placements(
    nodes: Sequence[Node], arrivals: Sequence[Arrival], result: PlacementResult
) -> list[tuple[int, str, str]]:
    return [
        (
            arrival.order,
            nodes[target.node].name if target else "",
            "|".join(map(str, target.gpus)) if target else "",
        )
        for arrival, target in zip(arrivals, result.targets, strict=True)
    ]


def _progress(total: int) -> Callable[[int], None]:
    """Says on a terminal how far it is, once it takes long."""
    started = time.monotonic()
    shown = started

    def show(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        is_last = done == total and shown > started
        is_due = now - started > QUIET_SECONDS and now - shown > EVERY_SECONDS
        if is_last or is_due:
            shown = now
            text = f"\r{done} of {total} arrivals "
            end = "\n" if is_last else ""
            tell(text, end=end)

    return show if sys.stderr.isatty() else lambda done: None


def _check_numpy() -> None:
    if find_spec("numpy") is None:
        raise AIStackError(
            "simulate place needs numpy: pip install 'jupyter_aistack[simulate]'"
        )


def _drawing() -> Callable[[PlacementResult, str, Path], None]:
    """The function that draws the curve."""
    from matplotlib.figure import Figure

    def draw(result: PlacementResult, policy: str, path: Path) -> None:
        step = max(1, len(result.curve) // CURVE_POINTS)
        points = [(0.0, 0.0), *result.curve[::step], *result.curve[-1:]]
        arrived, allocated = zip(*points, strict=True)
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            arrived, arrived, color="0.7", linewidth=1, label="all that was asked for"
        )
        axes.plot(arrived, allocated, label=policy)
        axes.set(
            xlabel="arrived demand, % of the GPUs",
            ylabel="allocated, % of the GPUs",
            ylim=(0, 105),
        )
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=150)

    return draw
