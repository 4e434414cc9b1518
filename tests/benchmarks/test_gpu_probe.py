"""What of the probes needs no GPU: their words, their ends, and that they walk over a
fake driver.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks import gpu_probe
from tests.benchmarks.gpu.probes import cuda, nvml
from tests.benchmarks.gpu.probes.reporting import Finding, Limits, finding_of, shell
from tests.fakes.nvml.plugin import fake_nvml_environment
from tests.paths import ROOT

GPU = "gpu uuid=GPU-a name=NVIDIA_H200_(fake) memory=150754820096 cc=9.0 cores=16896\n"


def probes(
    environment: dict[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    """The program with these words."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu_probe", *words]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    done = probes(fake_nvml_environment(tmp_path, None))
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("gpu_probe: there is no GPU on this machine")


def test_over_a_fake_driver_each_finding_is_a_line_and_the_end_is_a_table(
    tmp_path: Path, driver: str
) -> None:
    environment = fake_nvml_environment(tmp_path, GPU)
    searched = f"{environment['LD_LIBRARY_PATH']}{os.pathsep}{driver}"
    environment |= {"LD_LIBRARY_PATH": searched, "FAKE_CUDA_COUNT": "1"}
    done = probes(environment, "--only=facts", "--only=start", "--budget=200")
    assert done.returncode == 0, done.stderr
    lines, _, table = done.stdout.partition("\n\n")
    findings = [finding_of(line) for line in lines.splitlines()]
    assert None not in findings
    by_name = {(each.probe, each.name): each.values for each in findings if each}
    assert by_name["facts", "machine"]["cores"] == os.cpu_count()
    cold = by_name["start", "cold"]
    assert (cold["error"], cold["total_mib"]) == ("", 20 * 1024)
    assert len(by_name["start", "eight_at_once"]["init_and_context_s"]) == 8
    for probe in ("facts", "start"):
        assert by_name[probe, "end"]["how"] == "status 0"
        assert by_name[probe, "end"]["left"] == []
    assert ("start", "failed") not in by_name, by_name
    assert [row.split()[:2] for row in table.splitlines()] == [
        list(each) for each in by_name
    ]


def test_what_is_dangerous_comes_last_and_all_fits_the_time_of_a_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gpu_probe.main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [each.name for each in gpu_probe.EXPERIMENTS]
    assert names[0] == "facts"
    assert names[-4:] == ["checkpoint", "speed", "frameworks", "oom"]


def test_a_probe_for_which_no_time_is_left_is_left_out() -> None:
    told: list[Finding] = []
    result = gpu_probe.measure([], 5.0, told.append)
    assert told == result
    assert [each.probe for each in result] == [
        each.name for each in gpu_probe.EXPERIMENTS
    ]
    assert all("left_out" in each.values for each in result)


def test_a_probe_that_fails_says_where_and_the_next_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(limits: Limits) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(gpu_probe.Experiment, "run", property(lambda self: broken))
    assert gpu_probe.run_here("facts", 5.0) == 0
    (line,) = capsys.readouterr().out.splitlines()
    finding = json.loads(line)
    assert finding["failed"] == "RuntimeError: no such thing"
    assert finding["at"].startswith("broken:")


def test_every_probe_can_be_loaded() -> None:
    for each in gpu_probe.EXPERIMENTS:
        assert callable(each.run)
        assert each.summary.endswith((".", "?"))


# -- words -----------------------------------------------------------------------------


def test_a_finding_is_a_line_and_a_row() -> None:
    finding = Finding(
        probe="mps", name="quit", values={"s": 1.23456, "left": [], "words": "ok"}
    )
    assert finding_of(finding.line()) == finding
    assert (
        finding.row() == "mps        quit                     s=1.235 left=[] words=ok"
    )


@pytest.mark.parametrize("line", ["a warning", "[1]", "3", '{"probe": "mps"}'])
def test_what_else_a_probe_prints_is_no_finding(line: str) -> None:
    assert finding_of(line) is None


def test_a_long_command_is_given_up() -> None:
    assert shell("sleep 60", 0.05) == "no end within 0.05 s"
    assert shell("echo $WORD", WORD="hello") == "hello"


def test_time_that_is_left_decides() -> None:
    limits = Limits(seconds=30.0, begin=time.monotonic())
    assert limits.affords(10)
    assert not limits.affords(31)


# -- the driver ------------------------------------------------------------------------


def test_without_the_driver_s_library_for_python_there_is_nothing_to_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.why_no_gpu() == "nvidia-ml-py is not installed"


class Recorded(cuda.Cuda):
    """A driver whose calls all succeed, and are kept."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, name: str, *arguments: object) -> int:
        self.calls.append(name)
        return 0


def test_what_was_restored_is_taken_out_before_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded()
    process = subprocess.Popen(["sleep", "600"])
    try:
        recorded.step("Restore", process.pid)
        assert cuda.restored == {process.pid}
        monkeypatch.setattr(cuda, "Cuda", lambda: recorded)
        cuda.retire_all()
        assert recorded.calls[1:] == [
            "cuCheckpointProcessLock",
            "cuCheckpointProcessCheckpoint",
        ]
        assert process.wait(10) == -9
        assert cuda.restored == set()
    finally:
        cuda.restored.clear()
        process.kill()
        process.wait()
