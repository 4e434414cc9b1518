"""A process and what it has started, ended by pid."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from jupyter_aistack.system import process_tree
from tests.fakes.first_thread import first_thread_over, needs_first_thread_to_end
from tests.fakes.waiting import wait_until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


def test_all_below_a_process_are_killed_each_by_its_pid() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    tree = process_tree.with_descendants(parent.pid)
    assert [process.pid for process in tree] == [parent.pid, child.pid]

    # The child outlives its parent, and is known still.
    parent.kill()
    parent.wait()
    assert process_tree.is_running(child)
    assert process_tree.killed(tree) == []
    wait_until(lambda: not process_tree.is_running(child))
    parent.stdout.close()


def test_a_process_that_is_gone_has_none_below_it() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert process_tree.with_descendants(gone.pid) == []


def test_what_does_not_end_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "send_kill", lambda processes: None)
    own = psutil.Process()
    assert process_tree.killed([own], 0.0) == [own]


@needs_first_thread_to_end
def test_who_has_only_lost_the_first_thread_is_waited_for() -> None:
    with first_thread_over() as process:
        assert process_tree.is_running(psutil.Process(process.pid))
        assert process_tree.killed([psutil.Process(process.pid)]) == []
