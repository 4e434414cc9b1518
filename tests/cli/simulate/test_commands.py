"""``simulate sessions`` from the command line, on real sessions.

`data/notebook_tasks.csv` is every sixteenth session of june_15s.csv of the public
NotebookOS dashboard (ds2-lab/NotebookOS-Dashboard, MIT licence), three of its columns.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from jupyter_aistack.cli.simulate.commands import add_sessions_parser
from jupyter_aistack.cli.simulate.scenario import POLICIES
from jupyter_aistack.cli.simulate.trace import COLUMNS, read_tasks, split_sessions
from jupyter_aistack.exceptions import InvalidRequest
from tests.paths import DATA

TRACE = DATA / "notebook_tasks.csv"
HEADER = "num_gpu,submit_time,duration\n"


def simulate_sessions(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_sessions_parser(parser.add_subparsers())
    options = parser.parse_args(["sessions", *map(str, arguments)])
    return int(options.run(options))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    path.write_text(HEADER + "1,0,10\n1,70,10\n2,5,10\n")
    return path


def test_suspend_holds_a_quarter_of_what_reservation_does_and_cells_start_within_a_second(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports = {}
    for policy in ("reservation", "suspend"):
        simulate_sessions(
            "--trace", TRACE, "--policy", policy, "--json", "--no-sensitivity"
        )
        reports[policy] = json.loads(capsys.readouterr().out)
    reservation, suspend = reports["reservation"], reports["suspend"]
    assert suspend["gpus"] == reservation["gpus"]
    assert suspend["gpu_hours_executed"] == reservation["gpu_hours_executed"]
    assert suspend["gpu_hours_held"] <= 0.25 * reservation["gpu_hours_held"]
    assert suspend["within_1s_pct"] >= 95
    assert suspend["held_of_reservation_pct"] == pytest.approx(
        100 * suspend["gpu_hours_held"] / reservation["gpu_hours_held"], abs=0.01
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_readable_report_says_what_is_assumed(
    policy: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate_sessions("--trace", small, "--policy", policy, "--gpus", "8") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{policy}: 3 tasks of 2 sessions on 8 GPUs\n")
    assert "memory x2:" in out
    assert "assumed:\n  - Sessions are told from the order of the rows" in out


def test_a_plot_is_a_picture(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    simulate_sessions("--trace", small, "--gpus", "8", "--plot", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "small.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_gpu,submit_time\n1,0\n", "bad.csv: column duration is missing"),
        (HEADER, "bad.csv: it has no rows"),
        (HEADER + "1,0,1\n1,nan,1\n", "bad.csv, row 3, column submit_time: 'nan'"),
        (HEADER + "1,0,-1\n", "bad.csv, row 2, column duration: '-1'"),
        (HEADER + "0,0,1\n", "bad.csv, row 2, column num_gpu: '0'"),
        (HEADER + "1.5,0,1\n", "bad.csv, row 2, column num_gpu: '1.5'"),
        (HEADER + "1,0\n", "bad.csv, row 2, column duration: '' is missing"),
        (HEADER + "1,0,inf\n", "bad.csv, row 2, column duration: 'inf'"),
        (
            HEADER + "9,0,1\n",
            "bad.csv, row 2, column num_gpu: 9 GPUs cannot be had of one host",
        ),
        (HEADER + "1,0,100000\n", "every task is longer than 1 d"),
    ],
)
def test_a_bad_trace_is_one_sentence_with_row_and_column(
    text: str, message: str, tmp_path: Path
) -> None:
    trace = tmp_path / "bad.csv"
    trace.write_text(text)
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        simulate_sessions("--trace", trace, "--plot", tmp_path / "out.png")
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--policy", "magic"],
            "policy: 'magic' is not one of reservation, batch, notebookos, reclaim, suspend",
        ),
        (["--gpus", "0"], "--gpus: '0' is not a whole number, 1 to 100000"),
        (["--gpus", "-3"], "--gpus: '-3'"),
        (["--gpus", "nan"], "--gpus: 'nan'"),
        (["--park-after", "soon"], "--park-after: 'soon' is not a duration"),
        (["--gpu-memory", "0GB"], "--gpu-memory"),
        (["--restore-gbps", "0"], "--restore-gbps: '0'"),
        (["--unused", "1"], "--unused: '1' is not a number, 0 to 0.95"),
        (["--memory-p90", "1GB"], "--memory-p90: is below --memory-median"),
        (["--idle-reclaim", "1min"], "--idle-reclaim: is before --idle-notice"),
        (["--plot", "/nowhere/out.png"], "plot: there is no folder '/nowhere'"),
        (["--plot", "out.txt"], "plot: 'out.txt' is not a picture"),
        (
            ["--trace", "/nowhere.csv"],
            "/nowhere.csv: cannot be read: No such file or directory",
        ),
    ],
)
def test_a_bad_option_is_one_sentence(
    arguments: list[str], text: str, small: Path
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(text)):
        simulate_sessions("--trace", small, *arguments)


def test_progress_goes_to_a_terminal_only_and_leaves_nothing_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate_sessions(
        "--trace", TRACE, "--policy", "batch", "--no-sensitivity", "--json"
    )
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    simulate_sessions(
        "--trace", TRACE, "--policy", "batch", "--no-sensitivity", "--json"
    )
    shown = capsys.readouterr()
    assert "1,000 of 7,542 tasks" in shown.err
    assert shown.err.endswith("\r\x1b[K")
    assert json.loads(shown.out)["policy"] == "batch"


def test_sessions_are_told_by_rows_that_begin_before_the_one_above_ended(
    small: Path,
) -> None:
    assert [
        [task.row for task in session] for session in split_sessions(read_tasks(small))
    ] == [[2, 3], [4]]


def test_a_column_session_tells_whose_a_task_is(tmp_path: Path) -> None:
    path = tmp_path / "named.csv"
    path.write_text(",".join([*COLUMNS, "session"]) + "\n1,0,1,a\n1,5,1,b\n1,2,1,b\n")
    assert [
        [task.row for task in session] for session in split_sessions(read_tasks(path))
    ] == [[2], [3, 4]]
