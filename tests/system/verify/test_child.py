"""Waiting for a child whose driver starts slowly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jupyter_aistack.system.verify import child
from jupyter_aistack.system.verify.child import ProbeResult

SLOW = """
import os, sys, time
with open({gate!r} + ".new", "w") as file:
    file.write(str(os.getpid()))
os.replace({gate!r} + ".new", {gate!r} + ".pid")
while not os.path.exists({gate!r}):
    time.sleep(0.005)
print('{{"visible": null}}', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the child waits for before it reports; waits count at once."""
    file = tmp_path / "gate"
    program = tmp_path / "slow.py"
    program.write_text(SLOW.format(gate=str(file)))
    monkeypatch.setattr(child, "_PROGRAM", program)
    monkeypatch.setattr(child, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(child, "SLOW_SECONDS", 0.0)
    return file


def test_whoever_waits_for_a_slow_driver_is_told_until_it_has_answered(
    gate: Path,
) -> None:
    told: list[float] = []

    def on_slow(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 3:
            gate.touch()

    with ProbeResult(
        interpreter=sys.executable, environment=os.environ, on_slow=on_slow
    ) as probe:
        assert probe.seen == {"visible": None}
    assert len(told) >= 3
    assert told == sorted(told)


def test_a_quick_answer_is_no_wait(gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.touch()
    monkeypatch.setattr(child, "SLOW_SECONDS", child.CHILD_SECONDS)
    told: list[float] = []
    with ProbeResult(
        interpreter=sys.executable, environment=os.environ, on_slow=told.append
    ) as probe:
        assert probe.seen == {"visible": None}
    assert told == []


def test_a_wait_may_be_broken_off_and_leaves_no_child(gate: Path) -> None:
    pid_file = gate.with_name("gate.pid")

    def interrupt(seconds: float) -> None:
        if pid_file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ProbeResult(
            interpreter=sys.executable, environment=os.environ, on_slow=interrupt
        )
    assert not psutil.pid_exists(int(pid_file.read_text()))


def test_a_child_that_never_answers_is_given_up(
    gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "CHILD_SECONDS", 0.0)
    with pytest.raises(subprocess.TimeoutExpired):
        ProbeResult(interpreter=sys.executable, environment=os.environ)
