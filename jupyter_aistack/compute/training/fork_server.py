"""Where ranks hatch: ``python -m jupyter_aistack.compute.training.fork_server PARENT``,
one beside each Dask worker that trains.

Importing torch takes seconds. The nest does it once and forks each rank from there, so
that every run but the first starts in a tenth of a second. It has imported, never
computed: no CUDA context, no OpenMP pool and no autograd thread, none of which survives
a fork.

Told on standard input, one JSON object per line: ``job_file``, ``out_file``,
``log_file``, ``path`` (Python's). For
each it writes a pid file, and when the rank has ended a file with its exit status, both
beside the job file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_aistack.system.files import write_atomic

POLL_SECONDS = 0.02
IDLE_SECONDS = 600.0
"""An unused nest ends, for the memory's sake; the next run makes a new one."""


def main() -> None:
    """Serve until the worker is gone or nothing was asked for long."""
    parent = int(sys.argv[1])
    ranks = dict[int, Path]()
    used_at = time.monotonic()
    _import()
    pending = b""
    while os.getppid() == parent and time.monotonic() - used_at < IDLE_SECONDS:
        if select.select([0], [], [], POLL_SECONDS)[0]:
            received = os.read(0, 65536)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                ranks.update(_hatch(json.loads(line)))
        _collect(ranks)
        if ranks:
            used_at = time.monotonic()
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _import() -> None:
    import cloudpickle  # noqa: F401
    import torch
    import torch.nn.parallel

    from . import context, rank  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.SGD(
        [torch.zeros(1, requires_grad=True)], lr=0.1
    )  # the first optimizer imports as much again


def _hatch(order: dict[str, Any]) -> dict[int, Path]:
    """Fork one rank; its pid and its job's file."""
    job_file = Path(order["job_file"])
    nest = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(order, nest)
    write_atomic(job_file.with_suffix(".pid"), str(pid))
    return {pid: job_file}


def _become(order: dict[str, Any], nest: int) -> None:
    """In the child: cut the ties to the nest and run the rank. Never returns."""
    from . import rank

    try:
        os.setsid()  # Ctrl-C in a terminal goes to whole process groups, and stopping is for the notebook
        for name, number in (
            (os.devnull, 0),
            (order["out_file"], 1),
            (order["log_file"], 2),
        ):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.path[:] = order["path"]
        rank.main(Path(order["job_file"]), nest)
    finally:
        os._exit(1)


def _collect(ranks: dict[int, Path]) -> None:
    """Write down which ranks have ended, and how."""
    for pid in list(ranks):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            exit_file = ranks.pop(pid).with_suffix(".exit")
            write_atomic(exit_file, str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
