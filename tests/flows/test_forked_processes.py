"""A process that is forked from a holder gives back nothing of its parent's, and may
ask for a lease of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from tests.fakes.kernel_server import IPYKERNEL, WriteKernel, client_of, evaluate

HOLD_AND_FORK = """
import json, multiprocessing, os, sys, threading
import jupyter_aistack as aistack

def own_lease():
    with aistack.request("1/4") as own:
        print(json.dumps({"child": own.id, "lease": os.environ["AISTACK_LEASE"]}), flush=True)

def fork(child, leave=sys.exit):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        child()
        leave(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def fail():
    raise ValueError("in the child")

def use_parents_handle():
    assert lease.refresh().state == "active"
    assert lease.release().state == "active"
    assert lease.drop() == ""

def fork_from_thread():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(fork(own_lease, os._exit)))
    thread.start()
    thread.join()
    return codes[0]

def in_multiprocessing():
    process = multiprocessing.get_context("fork").Process(target=own_lease)
    process.start()
    process.join()
    return process.exitcode

lease = aistack.request("1/4")
environment = dict(os.environ)
cores = os.sched_getaffinity(0)
with lease:
    exit_code = CHILD
    state = lease.refresh().state
    is_whole = dict(os.environ) == environment and os.sched_getaffinity(0) == cores
print(json.dumps({"exit": exit_code, "state": state, "is_whole": is_whole, "parent": lease.id}))
"""


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run(child: str) -> list[dict[str, Any]]:
    """What the child and then its parent have printed."""
    done = subprocess.run(
        [sys.executable, "-c", HOLD_AND_FORK.replace("CHILD", child)],
        env={**os.environ, "AISTACK_PROVIDERS": "simulated:1xH100-80GB"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("child", "exit_code"),
    [
        ("fork(lambda: None)", 0),
        ("fork(lambda: sys.exit(3))", 3),
        ("fork(fail)", 1),
        ("fork(use_parents_handle)", 0),
        ("fork(lambda: lease.__exit__(None, None, None))", 0),
        ("fork(lambda: os._exit(0))", 0),
    ],
)
def test_a_forked_child_leaves_the_lease_with_its_parent(
    child: str, exit_code: int
) -> None:
    (parent,) = run(child)
    assert parent["exit"] == exit_code
    assert (parent["state"], parent["is_whole"]) == ("active", True)


@pytest.mark.parametrize(
    "child", ["fork(own_lease)", "fork_from_thread()", "in_multiprocessing()"]
)
def test_a_forked_child_gets_a_lease_of_its_own(child: str) -> None:
    own, parent = run(child)
    assert own["child"] == own["lease"] != parent["parent"]
    assert (parent["exit"], parent["state"], parent["is_whole"]) == (0, "active", True)


HOLD_FILE = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"), isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
FORK_AMID_OPENING = """
import os, sys, threading, time
from jupyter_aistack.ledger.sql.ledger import SQLLedger

ledger = SQLLedger(sys.argv[1])
thread = threading.Thread(target=ledger.events)
thread.start()
while not ledger._lock.locked():  # it opens the ledger, and waits for the other process
    time.sleep(0.001)
pid = os.fork()
if pid == 0:
    ledger.events()
    os._exit(0)
print("forked", flush=True)
thread.join()
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_child_that_is_forked_while_a_thread_opens_the_ledger_can_use_it(
    own_ledger: str,
) -> None:
    with program(HOLD_FILE, own_ledger) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with program(FORK_AMID_OPENING, own_ledger) as forking:
            assert forking.stdout is not None
            forking.stdout.readline()
            other.communicate()
            # A child that waits for its parent's lock would wait for ever.
            forking.communicate(timeout=30)
            assert forking.returncode == 0


FORK_IN_KERNEL = """
def run_forked(steps):
    import os, sys
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(steps()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    return os.fdopen(read).read()

def own_lease():
    with aistack.request("cpu:1") as own:
        return own.id + " " + own.lease["holder"]["id"] + " " + own.lease["holder"]["parent"]

import jupyter_aistack as aistack
"""


async def test_a_child_forked_in_a_kernel_leaves_the_lease_with_the_kernel(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", argv=IPYKERNEL)
    )
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        await client.execute_interactive(FORK_IN_KERNEL, timeout=30)
        held = await evaluate(client, "(lease := aistack.request('cpu:1')).id")
        child = "run_forked(lambda: lease.__exit__(None, None, None))"
        assert await evaluate(client, child) == "None"
        assert broker.lease(held).is_live
        assert broker.lease(held).holder.id == kernel_id
