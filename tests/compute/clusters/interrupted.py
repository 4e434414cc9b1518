"""Interrupts itself at random moments of what a cluster does, twice each; prints, for
each round, how it ended and what was left of it. For the test of Ctrl-C.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from jupyter_aistack import Cluster
from jupyter_aistack.client import client

WORKERS = 2
SPEC = "cpu:1/4"


def start() -> None:
    Cluster(WORKERS, SPEC, progress=str).close()


def enter() -> None:
    with Cluster(WORKERS, SPEC, progress=str):
        pass


def scale() -> None:
    with Cluster(0, SPEC, progress=str) as cluster:
        cluster.scale(WORKERS)
        cluster.wait_for_workers(WORKERS)


def adapt() -> None:
    with Cluster(0, SPEC, progress=str) as cluster:
        cluster.adapt(minimum=WORKERS, maximum=WORKERS, interval="50ms")
        cluster.wait_for_workers(WORKERS)


STEPS: dict[str, Callable[[], None]] = {
    "start": start,
    "enter": enter,
    "scale": scale,
    "adapt": adapt,
}


def workers() -> list[int]:
    """Processes below this process that are no helper of Python's own."""
    alive = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            is_helper = "resource_tracker" in " ".join(child.cmdline())
            is_over = child.status() == psutil.STATUS_ZOMBIE
            if not is_helper and not is_over:
                alive.append(child.pid)
    return alive


def interrupt_at(moments: list[float], done: threading.Event) -> None:
    """Send SIGINT to this process alone, as VS Code does."""
    began = time.monotonic()
    for moment in moments:
        if done.wait(max(0.0, began + moment - time.monotonic())):
            return
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(step: Callable[[], None], moments: list[float]) -> str:
    done = threading.Event()
    thread = threading.Thread(target=interrupt_at, args=(moments, done))
    end = "no interrupt"
    thread.start()
    try:
        try:
            step()
        finally:
            done.set()
    except BaseException as error:
        end = type(error).__name__
    # The second may come amid this line; the thread is waited for in any case.
    while thread.is_alive():
        with suppress(KeyboardInterrupt):
            thread.join()
    return end


def main(name: str, rounds: int, seed: int) -> None:
    step = STEPS[name]
    step()
    began = time.monotonic()
    step()
    whole = time.monotonic() - began
    draw = random.Random(seed)
    for _ in range(rounds):
        first = draw.uniform(0, whole)
        moments = [first, first + draw.uniform(0, 0.3)]
        began = time.monotonic()
        end = interrupted(step, moments)
        if end == "no interrupt":
            # The first measure was taken while the machine was busier.
            whole = min(whole, time.monotonic() - began)
        left = {
            "end": end,
            "moments": moments,
            "leases": [lease["id"] for lease in client.connect().leases()],
            "queue": [request["id"] for request in client.connect().queue()],
            "workers": workers(),
            "handler": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        }
        print(json.dumps(left), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
