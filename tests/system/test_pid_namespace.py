"""Ids of this PID namespace, and ids of another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from jupyter_aistack.system import pid_namespace
from jupyter_aistack.system.pid_namespace import PidNamespace, exists

ABSENT = 4242017
IN_A_CONTAINER = """
import os
from jupyter_aistack.system.pid_namespace import PidNamespace, is_initial
print(is_initial(), sorted(PidNamespace().elsewhere([os.getpid(), 4242017])))
"""


def in_container(*here: int) -> tuple[set[int], PidNamespace]:
    """The processes of a container, to be changed, and its namespace."""
    running = set(here)
    return running, PidNamespace(
        exists=lambda pid: pid in running, is_initial=lambda: False
    )


def test_an_id_without_a_process_has_ended_in_the_hosts_own_namespace() -> None:
    assert PidNamespace(is_initial=lambda: True).elsewhere([ABSENT]) == frozenset()


def test_in_a_container_it_is_of_another_namespace() -> None:
    _, namespace = in_container(1, 2)
    assert namespace.elsewhere([1, 2, ABSENT]) == {ABSENT}


def test_in_a_container_a_process_that_was_seen_has_ended() -> None:
    running, namespace = in_container(1, 2)
    assert namespace.elsewhere([1, 2]) == frozenset()
    running.remove(2)
    assert namespace.elsewhere([1, 2, ABSENT]) == {ABSENT}


def test_what_is_remembered_is_bounded_and_the_last(monkeypatch) -> None:
    monkeypatch.setattr(pid_namespace, "MOST_REMEMBERED", 2)
    running, namespace = in_container(1, 2, 3)
    namespace.elsewhere([1])
    namespace.elsewhere([2])
    namespace.elsewhere([3])
    running.clear()
    assert namespace.elsewhere([1, 2, 3]) == {1}


def test_a_process_that_may_not_be_signalled_exists() -> None:
    assert exists(os.getpid())
    assert exists(1)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert [exists(pid) for pid in (child.pid, 0, -1, 1 << 40)] == [False] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")
def test_in_a_real_pid_namespace() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is missing")
    command = [unshare, "-r", "-p", "-f", "--mount-proc", sys.executable]
    tried = subprocess.run(
        [*command, "-c", IN_A_CONTAINER], capture_output=True, text=True
    )
    if tried.returncode and "unshare" in tried.stderr:
        pytest.skip("PID namespaces may not be made here")
    assert tried.stdout.strip() == f"False [{ABSENT}]", tried.stderr
