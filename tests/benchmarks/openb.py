"""The openb cluster, its traces, and the protocol by which placement policies are
compared on it.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_aistack.cli.simulate.csv_io import read_history, read_nodes
from jupyter_aistack.core.placement.demand import WHOLE, Demand, Node
from tests.paths import ROOT

FULL = ROOT.parent / "shared" / "data" / "openb"
SMALL = ROOT / "tests" / "data" / "openb"
TRACES = ("default", "gpushare40", "multigpu30", "gpuspec20", "cpu100")
LOAD = 1.3


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A cluster, the tasks of its traces, and FGD's published allocation in per cent by
    (trace, load).
    """

    nodes: Sequence[Node]
    traces: Mapping[str, Sequence[Demand]]
    published: Mapping[tuple[str, int], float]


def full() -> Workload | None:
    """The whole cluster; None where its files are not at hand."""
    if not FULL.is_dir():
        return None
    with (FULL / "published_allocation.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["policy"] == "FGD"]
    return Workload(
        nodes=read_nodes(FULL / "openb_node_list_gpu_node.csv"),
        traces={
            trace: read_history(FULL / f"openb_pod_list_{trace}.csv")
            for trace in TRACES
        },
        published={
            (row["trace"], load): float(row[f"alloc_pct_at_load_{load}"])
            for row in rows
            for load in (90, 100, 130)
        },
    )


def small() -> Workload:
    """A sixth of the cluster, which is part of the tests."""
    traces = {
        name: read_history(SMALL / f"pods_{name}.csv")
        for name in ("default", "gpuspec20")
    }
    return Workload(nodes=read_nodes(SMALL / "nodes.csv"), traces=traces, published={})


def arrivals(tasks: Sequence[Demand], nodes: Sequence[Node], seed: int) -> list[Demand]:
    """All tasks, some removed or random copies appended until 1.3 times the GPUs are
    asked for, in a random order.
    """
    chance = random.Random(seed)
    wanted = LOAD * WHOLE * sum(node.gpus for node in nodes)
    chosen = list(tasks)
    chance.shuffle(chosen)
    asked = sum(task.gpus * task.share_milli for task in chosen)
    while asked > wanted:
        gone = chosen.pop()
        asked -= gone.gpus * gone.share_milli
    while asked < wanted:
        chosen.append(chance.choice(tasks))
        asked += chosen[-1].gpus * chosen[-1].share_milli
    chance.shuffle(chosen)
    return chosen
