"""The child that looks at the devices, and what is made of its report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.client.runtime import attach
from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import check_enforcement
from jupyter_aistack.kernel import verify
from jupyter_aistack.kernel.verify import bind_process, check


def test_kernel_package_opens_nothing() -> None:
    code = "import sys; before = set(sys.modules); import jupyter_aistack.kernel; print(*set(sys.modules) - before)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {name.partition(".")[0] for name in loaded} <= {
        "jupyter_aistack",
        *sys.stdlib_module_names,
    }


VERDICTS = [
    ({"visible": ["GPU-1"]}, {"visible": ["GPU-1"]}, True, ""),
    (
        {"visible": ["GPU-1"]},
        {"visible": ["GPU-1", "GPU-2"]},
        False,
        "not enforced: the process sees devices GPU-1, GPU-2",
    ),
    (
        {"visible": ["GPU-1"]},
        {"visible": None, "problem": "no driver"},
        None,
        "could not be verified: no driver",
    ),
    ({"visible": []}, {"visible": None, "problem": "no driver"}, True, ""),
    ({"visible": []}, {"visible": ["GPU-1"]}, False, "not enforced: "),
    (
        {"visible": ("GPU-1",), "cores": (0,)},
        {"visible": None, "cores": [0, 1]},
        False,
        "not enforced: the process sees CPU cores",
    ),
    ({"cores": [0], "threads": "1"}, {"cores": [0], "threads": "1"}, True, ""),
    (
        {"threads": "1"},
        {"threads": None},
        False,
        "not enforced: the process sees OMP_NUM_THREADS = (unset)",
    ),
]


@pytest.mark.parametrize(("expects", "seen", "verdict", "note"), VERDICTS)
def test_verdict(
    expects: dict[str, Any], seen: dict[str, Any], verdict: bool | None, note: str
) -> None:
    result, condition = check_enforcement(Expectation(**expects), seen, 1.0)
    assert result is verdict
    assert (condition.text if condition else "").startswith(note)


def test_nothing_promised_is_not_called_verified() -> None:
    assert check(Expectation(), pid=os.getpid(), command=[], environment={})[0] is None


def test_child_that_cannot_start_is_no_verdict() -> None:
    verdict, condition = check(
        Expectation(threads="1"),
        pid=os.getpid(),
        command=["/no/such/python"],
        environment={},
    )
    assert verdict is None
    assert condition is not None
    assert condition.text == "could not be verified: FileNotFoundError"


def test_a_file_of_the_users_does_not_stand_in_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert attach.verify(Expectation(threads="3")) == (True, None)
    assert check(
        Expectation(threads="3"),
        pid=os.getpid(),
        command=[],
        environment=dict(os.environ),
    ) == (True, None)


def test_a_process_that_has_ended_is_not_called_verified() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    verdict, condition = check(
        Expectation(threads="1"), pid=process.pid, command=[], environment={}
    )
    assert verdict is None
    assert condition is not None
    assert condition.text == "could not be verified: ProcessLookupError"


def test_kernel_behind_a_launcher_is_checked_with_our_own_python() -> None:
    assert verify._interpreter(["conda", "run", "python"]) == sys.executable
    assert (
        verify._interpreter(["/envs/a/bin/python3.12", "-m", "x"])
        == "/envs/a/bin/python3.12"
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_threads_that_run_already_are_bound_too() -> None:
    code = (
        "import threading, time; "
        "[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(3)]; "
        "print()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-uc", code], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        core = min(os.sched_getaffinity(0))
        bind_process(process.pid, [core])
        threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
        results = [os.sched_getaffinity(thread) for thread in threads]
        process.kill()
    assert results == [{core}] * 4


def test_process_that_has_ended_is_left_alone() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    bind_process(process.pid, [0])
