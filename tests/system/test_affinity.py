"""Threads of other processes, bound to other cores while they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyter_aistack.system.affinity import rebind

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="needs affinity, and two cores",
)
CORES = tuple(sorted(os.sched_getaffinity(0)))[:2] if sys.platform == "linux" else ()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_is_widened_and_narrowed(child: subprocess.Popen[bytes]) -> None:
    first, second = CORES
    os.sched_setaffinity(child.pid, {first})
    assert rebind([child.pid], {first}, {first, second})
    assert os.sched_getaffinity(child.pid) == {first, second}
    assert rebind([child.pid], {first}, {first})
    assert os.sched_getaffinity(child.pid) == {first}


def test_what_a_program_has_bound_itself_stays_within(
    child: subprocess.Popen[bytes],
) -> None:
    first, second = CORES
    os.sched_setaffinity(child.pid, {second})
    # Its guarantee is the first core, and it had both: it chose the second.
    assert rebind([child.pid], {first}, {first, second})
    assert os.sched_getaffinity(child.pid) == {second}
    assert rebind([child.pid], {first}, {first})
    assert os.sched_getaffinity(child.pid) == {first}


def test_a_process_that_is_not_there_is_not_bound() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert not rebind([ended.pid], {0}, {0})
    assert not rebind([], {0}, {0})


def test_cores_that_the_host_does_not_have_are_refused(
    child: subprocess.Popen[bytes],
) -> None:
    assert not rebind([child.pid], {CORES[0]}, {4095})
