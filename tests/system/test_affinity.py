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


STARTS_THREADS = """
import sys, threading

over = threading.Event()

def start_next(left):
    if left:
        threading.Thread(target=start_next, args=(left - 1,)).start()
    else:
        print("all are there", flush=True)
    over.wait()

threading.Thread(target=start_next, args=(300,)).start()
print("they come", flush=True)
sys.stdin.read()
over.set()
"""


def test_threads_that_are_started_meanwhile_are_bound_too() -> None:
    first, second = CORES
    program = [sys.executable, "-I", "-S", "-c", STARTS_THREADS]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe) as starting:
        assert starting.stdout is not None
        starting.stdout.readline()
        os.sched_setaffinity(starting.pid, {first, second})
        assert rebind([starting.pid], {first}, {first})
        starting.stdout.readline()
        threads = os.listdir(f"/proc/{starting.pid}/task")
        bound = [os.sched_getaffinity(int(thread)) for thread in threads]
        starting.communicate()
    assert bound == [{first}] * len(threads)


def test_a_process_that_is_not_there_is_not_bound() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert not rebind([ended.pid], {0}, {0})
    assert not rebind([], {0}, {0})


def test_cores_that_the_host_does_not_have_are_refused(
    child: subprocess.Popen[bytes],
) -> None:
    assert not rebind([child.pid], {CORES[0]}, {4095})
