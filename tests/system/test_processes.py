from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from jupyter_aistack.system.processes import (
    ancestors,
    is_alive,
    parents,
    started_at,
    tree,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process with a child of its own; both wait to be told."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    yield process
    for below in (
        psutil.Process(process.pid).children() if process.poll() is None else []
    ):
        below.kill()
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    since = started_at(os.getpid())
    assert since is not None
    assert is_alive(os.getpid(), since)
    assert is_alive(os.getpid(), None)
    assert not is_alive(os.getpid(), since + 60)


def test_setting_the_clock_makes_nobody_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since = started_at(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert started_at(os.getpid()) == since


def test_the_dead_and_the_undead_do_not_live(child: subprocess.Popen[str]) -> None:
    since = started_at(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid, since), "it is a zombie now"
    child.wait()
    assert not is_alive(child.pid, since)
    assert started_at(child.pid) is None


def test_a_tree_holds_all_below_its_root_and_the_nearer_root_has_them(
    child: subprocess.Popen[str],
) -> None:
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    assert parents()[grandchild] == child.pid
    assert ancestors(grandchild)[:3] == [grandchild, child.pid, os.getpid()]
    found = tree({"ours": os.getpid(), "theirs": child.pid, "theirs too": child.pid})
    assert found["theirs"] == found["theirs too"] == {child.pid, grandchild}
    assert os.getpid() in found["ours"]
    assert grandchild not in found["ours"]
