from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_aistack.cli.simulate.place import add_place_parser, replay
from jupyter_aistack.core.placement.demand import WHOLE, Demand, Node
from jupyter_aistack.exceptions import InvalidRequest
from tests.benchmarks import openb

NODES = "sn,cpu_milli,memory_mib,gpu,model\na,8000,8192,2,T4\nb,8000,8192,0,\n"
ARRIVALS = """order,name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec
2,third,4000,1024,1,600,
1,second,1000,1024,0,0,
0,first,1000,1024,1,1000,T4
3,fourth,1000,1024,1,500,V100|A10
"""
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`simulate place` on the two small tables, or on others."""

    def run(*more: str, nodes: str = NODES, arrivals: str = ARRIVALS) -> int:
        (tmp_path / "nodes.csv").write_text(nodes)
        (tmp_path / "arrivals.csv").write_text(arrivals)
        parser = argparse.ArgumentParser()
        add_place_parser(parser.add_subparsers())
        files = [
            "--nodes",
            tmp_path / "nodes.csv",
            "--arrivals",
            tmp_path / "arrivals.csv",
        ]
        options = parser.parse_args(
            ["place", *map(str, files), "--out", str(tmp_path / "out.csv"), *more]
        )
        return int(options.run(options))

    return run


def test_placements_are_written_in_order_with_the_refused_empty(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json") == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "order,node,gpus"
    assert lines[1].startswith("0,a,")
    assert lines[2] in {"1,a,", "1,b,"}
    assert lines[3].startswith("2,a,")
    assert lines[4] == "3,,"
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["placed"], report["refused"], report["refused_for"]) == (
        3,
        1,
        {"no such model": 1},
    )
    assert report["allocated_pct_at_load"] == {"100": 80.0, "90": 80.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "arrivals.csv",
        "nodes.csv",
        "out.csv",
    ]


def test_several_gpus_are_joined_by_bars(run: Run, tmp_path: Path) -> None:
    run(arrivals="order,name,cpu_milli,memory_mib,num_gpu,gpu_milli\n7,x,1,1,2,1000\n")
    assert (tmp_path / "out.csv").read_text() == "order,node,gpus\n7,a,0|1\n"


@pytest.mark.parametrize(
    ("nodes", "arrivals", "text"),
    [
        (
            NODES,
            ARRIVALS.replace("gpu_milli", "gpu_mill"),
            "arrivals.csv: column gpu_milli is missing",
        ),
        (
            NODES,
            ARRIVALS.replace("1,second,1000", "1,second,nan"),
            "arrivals.csv, row 3, column cpu_milli: 'nan'",
        ),
        (
            NODES,
            ARRIVALS.replace("1,second,1000", "1,second,-5"),
            "arrivals.csv, row 3, column cpu_milli: '-5'",
        ),
        (
            NODES,
            ARRIVALS.replace("1,second,1000", "1,second,inf"),
            "row 3, column cpu_milli: 'inf'",
        ),
        (NODES, ARRIVALS.replace("1,600", "1,1600"), "row 2, column gpu_milli: '1600'"),
        (NODES, ARRIVALS.replace("1,600", "1,0"), "row 2, column gpu_milli: '0'"),
        (NODES, ARRIVALS.replace("1,second", "2,second"), "row 3, column order: '2'"),
        (NODES, ARRIVALS + "9,short\n", "row 6, column cpu_milli: '' is missing"),
        (
            NODES.replace("\nb,", "\na,"),
            ARRIVALS,
            "nodes.csv, row 3, column sn: 'a' names a node",
        ),
        (
            NODES.replace("\nb,", "\n,"),
            ARRIVALS,
            "nodes.csv, row 3, column sn: '' is empty",
        ),
        ("", ARRIVALS, "nodes.csv: column sn is missing"),
        (NODES.splitlines()[0], ARRIVALS, "nodes.csv: it has no rows"),
    ],
)
def test_a_fault_is_told_with_file_row_and_column_and_nothing_is_written(
    run: Run, tmp_path: Path, nodes: str, arrivals: str, text: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(nodes=nodes, arrivals=arrivals)
    assert text in caught.value.message
    assert "\n" not in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "arrivals.csv",
        "nodes.csv",
    ]


def test_an_unknown_policy_writes_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="allowed are scarcity, fgd, best-fit"):
        run("--policy", "best")
    assert not (tmp_path / "out.csv").exists()


def test_files_that_cannot_be_opened_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"gone\.csv: cannot be read"):
        run("--history", str(tmp_path / "gone.csv"))
    with pytest.raises(InvalidRequest, match="cannot be written"):
        run("--out", str(tmp_path / "nowhere" / "out.csv"))


def test_the_curve_is_drawn(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--plot", str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_load_that_was_never_reached_has_no_allocation() -> None:
    nodes = [Node(name="a", cpu_milli=1, memory_mib=1, gpus=2)]
    ticks = iter((0.0, 2.0))
    result = replay(
        nodes, [Demand(gpus=1, share_milli=WHOLE)], clock=lambda: next(ticks)
    )
    assert (result.at(50), result.at(90), result.seconds) == (50.0, None, 2.0)


@pytest.mark.parametrize("trace", ["default", "gpuspec20"])
def test_on_a_sixth_of_the_openb_cluster_ours_strands_clearly_less_than_fgd(
    trace: str,
) -> None:
    workload = openb.small()
    tasks = workload.traces[trace]
    stranded = {"scarcity": 0.0, "fgd": 0.0, "best-fit": 0.0}
    for seed in (1, 2):
        arrivals = openb.arrivals(tasks, workload.nodes, seed)
        for policy in stranded:
            stranded[policy] += 100 - (
                replay(workload.nodes, arrivals, policy=policy, history=tasks).at(100)
                or 0
            )
    assert stranded["scarcity"] < 0.92 * stranded["fgd"]
    assert stranded["scarcity"] < 0.8 * stranded["best-fit"]
