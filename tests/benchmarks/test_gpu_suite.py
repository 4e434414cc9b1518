"""What of the GPU suite needs no GPU: its reckoning, its words, and that nothing a
section does can cost another.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from jupyter_aistack.core.model.device import Enforcement
from tests.benchmarks import __main__ as all_of_them
from tests.benchmarks import gpu_suite
from tests.benchmarks.gpu import bench as bench_module
from tests.benchmarks.gpu import (
    caps,
    energy,
    grants,
    levels,
    notebooks,
    processes,
    running,
    suspend,
    teardown,
    tenants,
    work,
)
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    WorkFailed,
    by_name,
)
from tests.benchmarks.gpu.units import GIB, MIB
from tests.benchmarks.gpu.workers import all_at_once, worker
from tests.fakes.libraries import compiled
from tests.paths import ROOT

DOCTOR = {
    "devices": [
        {"kind": "cpu", "name": "CPU"},
        {
            "kind": "gpu",
            "name": "H200",
            "level": "L1",
            "why_not": {"L2": "driver 580 is older than 615"},
        },
        {"kind": "gpu", "name": "A30", "level": None, "problem": "is lost"},
    ],
    "suspend": {"tier": 1, "why": ""},
    "problems": ["A30 is lost"],
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        device="cpu", small=True, ends_at=time.monotonic() + 60, folder=tmp_path
    )


# -- rows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(name="n", value=0.96, least=0.95), "goal 0.95 or more: met"),
        (
            Row(name="n", value=0.9, least=0.95, most=1.05),
            "goal 0.95 or more, 1.05 or less: MISSED",
        ),
        (Row(name="n", value=0.0, most=0.0), "goal 0 or less: met"),
        (Row(name="n", value=None, most=0.0), ""),
        (Row(name="n", value=1.0), ""),
    ],
)
def test_a_goal_is_met_or_missed(row: Row, says: str) -> None:
    assert row.verdict == says


def test_the_report_keeps_ratios_figures_and_reasons_apart() -> None:
    rows = [
        Row(name="r", value=0.5, is_ratio=True),
        Row(name="f", value=2.0),
        Row(name="cut", says="cut after 3 s"),
    ]
    assert gpu_suite.as_json({"caps": rows}) == {
        "ratios": {"caps.r": 0.5},
        "figures": {"caps.f": 2.0},
        "said": {"caps.cut": "cut after 3 s"},
    }


def test_a_rehearsal_meets_no_goal() -> None:
    row = Row(name="n", value=1.0, least=2.0, says="why")
    assert gpu_suite.line_of(row).endswith("goal 2 or more: MISSED  why")
    assert "goal" not in gpu_suite.line_of(row, is_real=False)


# -- what sections reckon --------------------------------------------------------------


def test_levels_come_with_their_reasons() -> None:
    rows = by_name(list(levels.described(DOCTOR)))
    assert rows["gpus"].value == 2.0
    assert (rows["gpu0.level"].value, rows["gpu0.level"].says) == (1.0, "L1")
    assert rows["gpu0.L2"].says == "not reached: driver 580 is older than 615"
    assert (rows["gpu1.level"].value, rows["gpu1.level"].says) == (None, "n/a: is lost")
    assert rows["suspend.tier"].says == "1"


def test_a_doctor_of_an_older_version_is_understood() -> None:
    rows = by_name(
        list(levels.described({"devices": [{"kind": "gpu", "name": "H200"}]}))
    )
    assert rows["gpu0.level"].says == "n/a: doctor names no level"
    assert rows["suspend.tier"].says == "doctor names no tier"


def test_a_cap_that_nothing_holds_has_no_goal() -> None:
    result = {"driver": 140 << 30, "torch": 19 << 29}
    held = list(caps.compared("L1-strict", "10GiB", 10 << 30, result))
    assert [row.name for row in held] == [
        "L1-strict.10GiB.driver_vs_asked",
        "L1-strict.10GiB.torch_vs_asked",
    ]
    assert [row.verdict.rpartition(" ")[2] for row in held] == ["MISSED", "met"]
    driver, torch = caps.compared("L0", "10GiB", 10 << 30, result)
    assert driver.verdict == ""
    assert "advisory: nothing holds it" in driver.says
    assert torch.value == 0.95


def grant(
    level: Enforcement, verified: bool | None, too_much: bool | None
) -> grants.Checked:
    return grants.Checked(enforced_by=level, verified=verified, gave_too_much=too_much)


def test_a_grant_is_silently_unlimited_only_where_nobody_noticed() -> None:
    level = Enforcement.L1
    cases = [(True, True), (None, True), (False, True), (True, False), (True, None)]
    kinds = [grant(level, verified, too_much).kind for verified, too_much in cases]
    assert kinds == [
        "silent_unlimited",
        "silent_unlimited",
        "unlimited_but_found",
        "limited",
        "unknown",
    ]
    assert grant(Enforcement.L0, True, True).kind == "advisory"


def test_grants_are_counted_and_those_that_are_missing_said() -> None:
    result = [grant(Enforcement.L1, True, False)] * 3 + [
        grant(Enforcement.L1, True, True)
    ]
    rows = by_name(list(grants.counted(result, 5, Counter({"no room": 1}))))
    assert (rows["grants"].value, rows["grants"].verdict) == (
        4.0,
        "goal 5 or more: MISSED",
    )
    assert (rows["silent_unlimited"].value, rows["silent_unlimited"].verdict) == (
        1.0,
        "goal 0 or less: MISSED",
    )
    assert rows["failed"].says == "no room"


def test_how_many_can_be_unlimited_at_most_is_reckoned_from_how_many_were_checked() -> (
    None
):
    result = [grant(Enforcement.L1, True, False)] * 300
    rows = by_name(list(grants.counted(result, 1000, Counter())))
    assert rows["grants"].verdict == "goal 300 or more: met"
    assert rows["silent_unlimited_at_most"].value == pytest.approx(0.01)
    assert grants.so_far(result, Counter({"no room": 2})) == Row(
        name="after_300", says="0 silently unlimited, 2 failed"
    )


def test_without_a_level_that_holds_no_count_of_silent_ones_is_claimed() -> None:
    rows = by_name(
        list(grants.counted([grant(Enforcement.L0, True, None)], 1, Counter()))
    )
    assert (rows["silent_unlimited"].value, rows["advisory"].value) == (None, 1.0)
    assert rows["silent_unlimited"].says == "n/a: the driver is said to hold none"
    rows = by_name(
        list(grants.counted([grant(Enforcement.L1, True, None)], 1, Counter()))
    )
    assert (
        rows["silent_unlimited"].says
        == "n/a: whether the driver limits them could not be asked"
    )


def test_tenants_stand_beside_a_dedicated_gpu() -> None:
    rows = by_name(
        list(tenants.compared("L1", {"train": [10.0]}, {"train": [6.0, 4.0]}))
    )
    assert rows["L1.2_tenants.train.aggregate_vs_dedicated"].value == 1.0
    assert rows["L1.2_tenants.train.slowest_vs_dedicated"].value == 0.4


def test_caps_of_30_and_70_are_exact_at_3_to_7() -> None:
    assert tenants.separated("L1", "train", [3.0, 7.0]).value == pytest.approx(1.0)
    assert tenants.separated("L1", "train", [5.0, 5.0]).verdict.endswith("MISSED")


def test_cycles_are_summed_up_with_what_went_wrong() -> None:
    result = [suspend.Cycle(out=1.0, back=0.5, is_right=True, is_gone=True)] * 2
    result += [suspend.Cycle(out=3.0, back=0.5, is_right=False, is_gone=False)]
    rows = by_name(list(suspend.in_short("driver.torch", result, 20)))
    assert (rows["driver.torch.cycles"].value, rows["driver.torch.cycles"].says) == (
        3.0,
        "of 20: the time was up",
    )
    assert (
        rows["driver.torch.data_wrong"].value,
        rows["driver.torch.not_gone"].value,
    ) == (1.0, 1.0)
    assert rows["driver.torch.out_seconds"].value == 1.0


def test_seconds_become_speeds() -> None:
    rows = by_name(list(suspend.timed("driver.2GB", 2 * 10**9, 0.8, 0.0)))
    assert rows["driver.2GB.out_gb_per_second"].value == pytest.approx(2.5)
    assert rows["driver.2GB.back_gb_per_second"].value is None


def test_memory_of_the_host_that_grows_is_counted_on_where_it_is_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "available_bytes", lambda: 20 * GIB)
    monkeypatch.setattr(bench_module, "total_bytes", lambda: 24 * GIB)
    size = 60 * 10**9
    assert bench.host_room == 20 * GIB
    assert "the host has room for 13 GB" in suspend.why_no_size(bench, size, 1.0)
    told = replace(bench, host_bytes=128 * GIB)
    assert told.host_room == 124 * GIB
    assert suspend.why_no_size(told, size, 1.0) == ""
    assert replace(bench, host_bytes=8 * GIB).host_room == 20 * GIB


def test_more_than_the_host_may_hold_is_not_moved(bench: Bench) -> None:
    assert "the host has room for" in suspend.why_no_size(bench, 1 << 60, 1.0)
    assert suspend.why_no_size(bench, MIB, 1000.0) == ""
    late = Bench(
        device="cuda", small=False, ends_at=time.monotonic() + 20, folder=bench.folder
    )
    assert "and 20 s are left" in suspend.why_no_size(late, MIB, 1000.0)


def test_a_framework_that_is_missing_is_not_a_failure() -> None:
    assert (
        suspend.said_of(WorkFailed("ModuleNotFoundError: No module named 'cupy'"))
        == "not installed"
    )
    assert suspend.said_of(WorkFailed("it broke")) == "failed: it broke"


def test_power_adds_up_to_the_counter() -> None:
    samples = [(0.0, 100.0, 1000.0), (1.0, 300.0, 1200.0), (2.0, 100.0, 1400.0)]
    (row,) = energy.summed(samples)
    assert row.value == pytest.approx(1.0)
    (still,) = energy.summed([(0.0, 100.0, 1000.0), (1.0, 100.0, 1000.0)])
    assert still.value is None


def test_energy_that_no_lease_is_charged_is_no_success() -> None:
    samples = [(0.0, 100.0, 0.0), (1.0, 100.0, 100.0)]
    rows = by_name(list(energy.accounted(samples, {"system": 100.0})))
    assert rows["accounts_vs_counter"].verdict.endswith("met")
    assert rows["leases_vs_counter"].value == 0.0
    assert rows["leases_vs_counter"].verdict.endswith("MISSED")
    assert rows["system_vs_counter"].verdict.endswith("MISSED")
    assert rows["least_lease_vs_most"].says == "n/a: not both are charged"


def test_accounts_are_held_against_the_counter() -> None:
    samples = [(0.0, 100.0, 0.0), (1.0, 100.0, 100.0)]
    parts = {"l-1": 60.0, "l-2": 38.0, "system": 1.5}
    rows = by_name(list(energy.accounted(samples, parts)))
    verdict = rows["accounts_vs_counter"].verdict
    assert verdict == "goal 0.99 or more, 1.01 or less: met"
    assert rows["leases_vs_counter"].value == pytest.approx(0.98)
    assert rows["least_lease_vs_most"].value == pytest.approx(38 / 60)
    (none,) = energy.accounted(samples, None)
    assert none.value is None
    assert energy.moved({"l-1": 5.0}, {"l-1": 7.0, "system": 1.0}) == {
        "l-1": 2.0,
        "system": 1.0,
    }
    assert energy.moved(None, {}) is None


TURNS = [
    teardown.Turn(seconds=0.2, alone=10.0, beside=6.0, after=14.0),
    teardown.Turn(seconds=0.9, alone=10.0, beside=4.0, after=8.0),
]


def test_the_worst_of_all_turns_counts() -> None:
    rows = by_name(list(teardown.in_short("L1", TURNS, 1)))
    assert rows["L1.memory_back_seconds"].value == 0.9
    assert rows["L1.neighbour_after_vs_alone"].value == 0.8
    assert rows["L1.neighbour_after_vs_alone"].verdict.endswith("MISSED")
    assert rows["L1.neighbour_beside_vs_alone"].value == 0.4
    assert rows["L1.faults"].verdict.endswith("MISSED")


def test_cells_that_waited_and_cells_that_failed_are_counted() -> None:
    notebook = notebooks.Notebook(
        kernel_id="k",
        client=None,
        waits=[0.1] * 8 + [2.0, 3.0],
        failed=["RuntimeError: lost"],
    )
    rows = by_name(
        list(notebooks.in_short([notebook], {"LeaseResumed": 3, "LeaseStateLost": 1}))
    )
    assert (rows["share_within_1_s"].value, rows["wait_p95_s"].value) == (0.8, 3.0)
    assert (rows["failed"].value, rows["failed"].says) == (1.0, "RuntimeError: lost")
    assert (rows["suspends"].value, rows["resumes"].value) == (0.0, 3.0)
    assert rows["lost"].verdict.endswith("MISSED")
    assert "share_within_1_s" not in by_name(list(notebooks.in_short([], {})))


@pytest.mark.parametrize(("must_move", "verdict"), [(False, ""), (True, "MISSED")])
def test_notebooks_of_which_none_was_suspended_are_no_success_where_one_had_to_be(
    must_move: bool, verdict: str
) -> None:
    rows = by_name(list(notebooks.in_short([], {}, must_move=must_move)))
    assert rows["suspends"].verdict.rpartition(" ")[2] == verdict
    assert rows["resumes"].verdict.rpartition(" ")[2] == verdict
    assert rows["lost"].verdict.endswith("met")


@pytest.mark.parametrize(
    ("available", "shares"),
    [
        (1000, ("gpu:1/2", "")),
        (128, ("gpu:1/9", "gpu:13/18")),
        (22, ("gpu:1/51", "gpu:97/102")),
    ],
)
def test_notebooks_get_so_little_that_the_host_can_hold_them_all_and_so_much_that_somebody_must_go(
    available: int, shares: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "available_bytes", lambda: available * GIB)
    host = {"devices": [{"kind": "cpu"}, {"kind": "gpu", "memory_bytes": 140 * GIB}]}
    assert notebooks.shares(host, 4) == shares


def test_a_notebook_that_fails_does_nothing_more() -> None:
    good, bad = (
        notebooks.Notebook(kernel_id=name, client=None) for name in ("good", "bad")
    )
    done: list[str] = []

    def do(number: int, notebook: notebooks.Notebook) -> None:
        if notebook is bad:
            raise RuntimeError("lost")
        done.append(notebook.kernel_id)

    for _ in range(2):
        notebooks.all_at_once([good, bad], do)
    assert (done, bad.failed) == (["good", "good"], ["RuntimeError: lost"])


def test_the_server_is_told_to_suspend_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks.AIStack, "class_trait_names", lambda: ["suspend"])
    told = json.loads(notebooks.settings(tmp_path, True).read_text())["AIStack"]
    assert (told["queues"], told["suspend"]) == (
        {"default": {"suspend": True}, "plain": {}},
        {"warm": "2s"},
    )
    assert (
        "queues"
        not in json.loads(notebooks.settings(tmp_path, False).read_text())["AIStack"]
    )


# -- tenants as processes --------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 250, 251, 252, 1000])
def test_the_sum_of_a_pattern_is_known(count: int) -> None:
    assert work.pattern_sum(count) == sum(i % 251 for i in range(count))


def test_a_worker_does_what_it_is_told_and_says_what_it_cannot(bench: Bench) -> None:
    with worker(bench, {**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        assert child.ask("fill", how="memory", most=5 * MIB)["bytes"] == 4 * MIB
        with pytest.raises(WorkFailed, match="KeyError: 'dance'"):
            child.ask("run", what="dance", seconds=1)
        assert all_at_once([child], "count") == [{"done": 0}]
        child.process.kill()
        with pytest.raises(
            WorkFailed, match="its process ended with -9: it said nothing"
        ):
            child.hear()
    assert child.process.poll() is not None


@pytest.fixture(scope="module")
def driver() -> dict[str, str]:
    """An environment in which the driver gives a process 300 MiB of 141 GiB."""
    source = Path(work.__file__).with_name("fake_memory.c")
    folder = compiled(source, "libcuda.so.1", "-fvisibility=default")
    given = {"LD_LIBRARY_PATH": str(folder), "FAKE_CUDA_BYTES": str(300 * MIB)}
    return {**os.environ, "PYTHONPATH": str(ROOT), **given}


def test_what_the_driver_gives_is_found_and_given_back(
    bench: Bench, driver: dict[str, str]
) -> None:
    with worker(bench, driver) as child:
        for _ in range(2):
            assert (
                child.ask("fill", how="driver", most=1 << 40)["bytes"]
                == (256 + 32 + 3 * 4) * MIB
            )
        assert child.ask("fill", how="driver", most=64 * MIB)["bytes"] == 64 * MIB


def test_a_limit_is_one_only_if_more_is_refused(
    bench: Bench, driver: dict[str, str]
) -> None:
    with worker(bench, driver) as child:
        text = child.ask("probe", too_much=330 * MIB)
        assert text == {"free": 300 * MIB, "total": 141 << 30, "gave_too_much": False}
        assert child.ask("probe", too_much=200 * MIB)["gave_too_much"]
        assert child.ask("probe", too_much=200 * MIB)["free"] == 300 * MIB


# -- sections as processes -------------------------------------------------------------

SAY = """
import json, sys
def say(name):
    print(json.dumps({'name': name, 'value': 1.0}), flush=True)
say('first')
"""
LEAVE = """
import subprocess
command = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']
left = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
print(json.dumps({'name': 'pid', 'value': left.pid}), flush=True)
"""


def run(code: str, seconds: float = 30.0) -> list[Row]:
    shown: list[Row] = []
    result = running.run_section(
        [sys.executable, "-S", "-c", SAY + code], seconds, os.environ, shown.append
    )
    assert shown == result
    return result


def is_over(pid: int) -> bool:
    """Whether a process has ended; that of nobody may wait for init to notice."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_else_a_section_prints_is_no_row() -> None:
    assert [
        row.name for row in run("print('a warning'); print('[1]'); say('second')")
    ] == ["first", "second"]


def test_a_section_that_breaks_keeps_its_rows_and_says_so() -> None:
    first, last = run("sys.exit(3)")
    assert (first.name, last.says) == ("first", "failed: its process ended with 3")


def test_a_section_that_overruns_is_cut_and_what_it_left_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    rows = by_name(run(LEAVE + "import time; time.sleep(600)", seconds=0.7))
    assert rows["cut"].says.startswith("cut after its 1 s")
    assert "left_behind" not in rows
    assert is_over(int(rows["pid"].value or 0))


def test_what_a_section_leaves_behind_when_it_ends_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    rows = by_name(run(LEAVE))
    assert list(rows) == ["first", "pid"]
    assert is_over(int(rows["pid"].value or 0))


def test_a_checkpoint_helper_is_left_to_end_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(processes, "HELPER_SECONDS", 0.1)
    helper = LEAVE.replace(
        "time.sleep(600)']",
        "time.sleep(600)', 'jupyter_aistack.providers.nvidia.checkpoint.helper']",
    )
    rows = by_name(run(helper))
    pid = int(rows["pid"].value or 0)
    assert rows["left_behind"].says.startswith(str(pid))
    helping = psutil.Process(pid)
    assert helping.is_running()
    helping.kill()
    helping.wait(10)


# -- the suite -------------------------------------------------------------------------


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gpu_suite, "why_not", lambda device: "there is no GPU on this machine"
    )


def test_without_a_gpu_it_says_so_and_nothing_is_wrong(
    without_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_suite.main(["--json"]) == 0
    text = capsys.readouterr()
    why = "there is no GPU on this machine"
    assert json.loads(text.out.splitlines()[-1]) == {
        "ratios": {},
        "figures": {},
        "skipped": why,
    }
    assert text.err == f"gpu_suite: {why}\n"


def test_among_the_benchmarks_it_is_skipped_with_its_reason() -> None:
    result = {
        "gpu_suite": {"ratios": {}, "figures": {}, "skipped": "no GPU"},
        "cycle": None,
        "x": {"ratios": {"r": 0.5}},
    }
    _, *lines = all_of_them.table(result)
    assert [line.split() for line in lines] == [
        ["gpu_suite", "skipped:", "no", "GPU"],
        ["cycle", "FAILED", "nan"],
        ["x", "r", "0.500"],
    ]


def test_where_the_package_is_not_installed_jupyter_finds_its_provisioner(
    tmp_path: Path,
) -> None:
    folder = gpu_suite.registered(tmp_path)
    (result,) = importlib.metadata.distributions(path=[folder])
    (entry,) = result.entry_points.select(group="jupyter_client.kernel_provisioners")
    assert (entry.name, entry.load().__name__) == (
        "aistack-provisioner",
        "SliceProvisioner",
    )


def test_sections_are_listed_with_times_that_fit_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gpu_suite.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[0] for line in lines) == gpu_suite.SECTIONS
    assert (
        sum(gpu_suite.section(name).SECONDS for name in gpu_suite.SECTIONS)
        <= gpu_suite.BUDGET_SECONDS
    )


def test_what_a_section_saves_the_next_may_use() -> None:
    names = ["levels", "caps"]
    assert gpu_suite.share_of("levels", names, 90.0) == 90 * 10 / 45
    assert gpu_suite.share_of("caps", ["caps"], 85.0) == 85.0
    assert gpu_suite.share_of("caps", ["caps"], -1.0) < 0
    least = gpu_suite.LEAST_SECONDS
    assert gpu_suite.share_of("levels", gpu_suite.SECTIONS, 180.0) == least


def test_a_section_for_which_no_time_is_left_is_left_out(tmp_path: Path) -> None:
    options = gpu_suite.parsed(
        ["--budget", "1", "--device", "cpu", "--only", "caps", "--only", "levels"]
    )
    result = gpu_suite.measure(options, tmp_path, {}, sys.stderr)
    assert list(result) == ["levels", "caps"]
    assert all(rows[0].says.startswith("left out") for rows in result.values())


def test_a_section_that_raises_says_why_in_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(bench: Bench) -> Iterator[Row]:
        yield Row(name="first", value=1.0)
        raise RuntimeError("no such thing\nand more")

    monkeypatch.setattr(caps, "rows", broken)
    words = ["--section=caps", "--seconds=5", "--device=cpu", "--small"]
    options = gpu_suite.parsed([*words, f"--folder={tmp_path}"])
    assert gpu_suite.run_here(options) == 0
    first, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["name"] == "first"
    assert last["says"] == "failed: RuntimeError: no such thing"
