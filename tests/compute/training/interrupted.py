"""A process that trains and is interrupted, twice in a row, at many random moments:
``interrupted.py KEPT``, with a folder for checkpoints. Prints what each moment left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

MOMENTS = 30
FIRST_SECONDS = 1.2
SECOND_SECONDS = 0.4
SERVER = "jupyter_aistack.compute.training.fork_server"


def endless(ctx: Any) -> None:
    """Goes on from the checkpoint, and writes one in every step."""
    import torch

    model = torch.nn.Linear(1, 1)
    step = (ctx.restore(model) or {"step": 0})["step"]
    while True:
        step += 1
        ctx.mean(1.0)
        ctx.checkpoint(model, step=step)
        ctx.log(step)


class Interrupter:
    """Sends SIGINT to this process alone, as a Jupyter client does to a kernel, after
    each of some times.
    """

    def __init__(self, *delays: float) -> None:
        self._is_over = threading.Event()
        self._delays = delays
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for delay in self._delays:
            if self._is_over.wait(delay):
                return
            os.kill(os.getpid(), signal.SIGINT)

    def end(self) -> None:
        self._is_over.set()
        while self._thread.is_alive():
            self._thread.join()


def ranks_alive() -> list[int]:
    """Ranks below this process: forked by a fork server, whose command line they
    share.
    """
    pids = []
    for process in psutil.Process().children(recursive=True):
        try:
            parent = process.parent()
            is_rank = parent is not None and SERVER in parent.cmdline()
            if is_rank and process.status() != psutil.STATUS_ZOMBIE:
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids


def interrupt(cluster: Any, kept: Path, first: float, second: float) -> str:
    """Train and be interrupted; returns the error that came of it."""
    from jupyter_aistack import train

    outcome = ""
    interrupter = Interrupter(first, second)
    try:
        try:
            train(endless, workers=cluster, checkpoint_dir=kept)
        except BaseException as error:
            outcome = repr(error)
        interrupter.end()
    except KeyboardInterrupt:  # the second, when the first was through
        interrupter.end()
    return outcome


def main() -> None:
    from jupyter_aistack import Cluster
    from jupyter_aistack.client.client import connect

    kept = Path(sys.argv[1])
    random_moments = random.Random(7)
    with Cluster(2, "cpu:1/4") as cluster:
        for _ in range(MOMENTS):
            first = random_moments.uniform(0, FIRST_SECONDS)
            second = random_moments.uniform(0, SECOND_SECONDS)
            outcome = interrupt(cluster, kept, first, second)
            moment = {
                "moment": [first, second],
                "outcome": outcome,
                "ranks": ranks_alive(),
                "folders": len(list(Path(tempfile.gettempdir()).glob("aistack-run-*"))),
            }
            print(json.dumps(moment), flush=True)
        workers = [worker.pid for worker in cluster.workers.values()]
        print(json.dumps({"workers": len(workers)}), flush=True)
    held = [lease["id"] for lease in connect().leases()]
    print(json.dumps({"leases": held}), flush=True)


if __name__ == "__main__":
    main()
