"""Ctrl-C at random moments of a cluster's life, twice each: a ``KeyboardInterrupt``, and
no lease, request or process is left.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from threading import Timer
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

SEED = 21

LOOK = """
import json, psutil
from jupyter_aistack.client.client import connect
own = connect()
def is_worker(process):
    helps = "resource_tracker" in " ".join(process.cmdline())
    return not helps and process.status() != psutil.STATUS_ZOMBIE
left = {
    "leases": len(own.leases()),
    "queue": len(own.queue()),
    "processes": sum(map(is_worker, psutil.Process().children(recursive=True))),
    "names": sorted({"cluster", "client"} & globals().keys()),
}
print(json.dumps(left))
"""
NOTHING = {"leases": 0, "queue": 0, "processes": 0, "names": []}


@pytest.mark.parametrize(
    ("step", "rounds"), [("start", 14), ("enter", 6), ("scale", 6), ("adapt", 4)]
)
@pytest.mark.timeout(600)
def test_two_interrupts_at_any_moment_leave_nothing(
    own_ledger: str, step: str, rounds: int
) -> None:
    program = [sys.executable, str(Path(__file__).with_name("interrupted.py"))]
    run = subprocess.run(
        [*program, step, str(rounds), str(SEED)],
        env={**os.environ, "AISTACK_PROVIDERS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(seen) == rounds
    for each in seen:
        assert [each["leases"], each["queue"], each["workers"]] == [[], [], []], each
        assert each["end"] in ("KeyboardInterrupt", "no interrupt"), each
        assert each["handler"], each
    interrupted = [each for each in seen if each["end"] == "KeyboardInterrupt"]
    assert len(interrupted) >= rounds // 2
    for trace in ("LeaseNotFound", "AssertionError", "never retrieved"):
        assert trace not in run.stderr


@pytest.fixture
def kernel(
    own_ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel outside a server, with the magics, as VS Code starts it."""
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(extra_arguments=["--ext=jupyter_aistack.magics"])
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client: BlockingKernelClient, code: str) -> tuple[dict[str, Any], str]:
    """The reply to a cell, and what it printed."""
    printed: list[str] = []

    def take(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=120, output_hook=take)
    return reply["content"], "".join(printed)


@pytest.mark.timeout(600)
def test_a_kernel_that_is_interrupted_alone_or_with_its_group_leaves_nothing(
    kernel: tuple[KernelManager, BlockingKernelClient],
) -> None:
    manager, client = kernel
    pid = manager.provisioner.pid
    draw = random.Random(SEED)

    def alone() -> None:
        os.kill(pid, 2)

    # Imports take long the first time only.
    assert run_cell(client, "%cluster up 2 --slice cpu:1/4")[0]["status"] == "ok"
    run_cell(client, "%cluster down")
    ends = []
    for number in range(10):
        first = draw.uniform(0.05, 2.0)
        moments = (first, first + draw.uniform(0, 0.3))
        interrupt = alone if number % 2 else manager.interrupt_kernel
        timers = [Timer(moment, interrupt) for moment in moments]
        for timer in timers:
            timer.start()
        reply, _ = run_cell(client, "%cluster up 2 --slice cpu:1/4")
        for timer in timers:
            timer.cancel()
            timer.join()
        if reply["status"] == "ok":
            take_down(client)
        else:
            ends.append(reply["ename"])
        assert json.loads(look(client)) == NOTHING, reply
    assert len(ends) >= 3
    assert set(ends) == {"KeyboardInterrupt"}


def take_down(client: BlockingKernelClient) -> None:
    """End a cluster that has come up; a last interrupt may hit this cell."""
    for _ in range(3):
        reply, _ = run_cell(client, "%cluster down")
        if reply["status"] == "ok":
            return


def look(client: BlockingKernelClient) -> str:
    """What is left; a last interrupt may still have hit the cell that looks."""
    for _ in range(3):
        reply, printed = run_cell(client, LOOK)
        if reply["status"] == "ok":
            return printed
    raise Empty


def test_an_interrupted_scale_goes_back_to_what_was(
    kernel: tuple[KernelManager, BlockingKernelClient],
) -> None:
    manager, client = kernel
    run_cell(client, "%cluster up 1 --slice cpu:1/2")
    pid = manager.provisioner.pid
    timer = Timer(1.0, os.kill, (pid, 2))
    timer.start()
    # The host holds two: the third waits for ever.
    reply, _ = run_cell(client, "%cluster scale 3")
    timer.join()
    assert reply["status"] == "error"
    code = "import time\nwhile len(cluster.workers) != 1 or len(own.leases()) != 1: time.sleep(0.05)"
    run_cell(client, LOOK)
    assert run_cell(client, code)[0]["status"] == "ok"
    assert json.loads(run_cell(client, LOOK)[1]) == {
        "leases": 1,
        "queue": 0,
        "processes": 1,
        "names": ["client", "cluster"],
    }
