"""What a Dask worker does for a rank: have it hatched, watch it, end it. The worker
itself never touches torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.02


def run_rank(job: dict[str, Any]) -> dict[str, Any]:
    """Run one rank to its end, as a Dask task.

    Args:
        job: see `supervisor`; ``stop_file``, once it exists, holds the seconds the rank
            gets to end by itself.

    Returns:
        ``rank``; ``code``, the exit status, negative for a signal; ``was_stopped``,
        whether that was on our account.
    """
    job_file = Path(job["error_file"]).with_suffix(".job")
    job_file.write_text(json.dumps(job))
    order = {
        "job_file": str(job_file),
        "out_file": job["out_file"],
        "log_file": job["log_file"],
        "path": sys.path,
    }
    process = RankProcess(_warm_nest(order), job_file)
    try:
        was_stopped = _watch(process, Path(job["stop_file"]))
    finally:
        process.signal(signal.SIGKILL)
    return {"rank": job["rank"], "code": process.poll(), "was_stopped": was_stopped}


def _watch(process: RankProcess, stop_file: Path) -> bool:
    """Wait for the end, or bring it about; tells which."""
    deadline: float | None = None
    while process.poll() is None:
        if deadline is None and stop_file.exists():
            deadline = time.monotonic() + float(stop_file.read_text())
            process.signal(signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            process.signal(signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return deadline is not None


class RankProcess:
    """A rank, as far as its nest tells."""

    def __init__(self, nest: subprocess.Popen[bytes], job_file: Path) -> None:
        self._nest = nest
        self._pid_file = job_file.with_suffix(".pid")
        self._exit_file = job_file.with_suffix(".exit")

    def poll(self) -> int | None:
        """The exit status; None while it runs. A rank does not outlive its nest."""
        nest_is_gone = self._nest.poll() is not None
        with contextlib.suppress(FileNotFoundError):
            return int(self._exit_file.read_text())
        return -signal.SIGKILL if nest_is_gone else None

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if self.poll() is None:
                os.kill(int(self._pid_file.read_text()), number)


_nest: subprocess.Popen[bytes] | None = None
_lock = threading.Lock()


def _warm_nest(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    """This worker's nest, started if there is none, with the order given to it."""
    global _nest
    line = json.dumps(order).encode() + b"\n"
    with _lock:
        if _nest is not None and _nest.poll() is None:
            with contextlib.suppress(
                BrokenPipeError
            ):  # it has just ended for lack of use
                return _give(_nest, line)
        _nest = _start_nest(order["log_file"])
        return _give(_nest, line)


def _give(nest: subprocess.Popen[bytes], line: bytes) -> subprocess.Popen[bytes]:
    assert nest.stdin is not None
    nest.stdin.write(line)
    nest.stdin.flush()
    return nest


def _start_nest(log_file: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.compute.training.fork_server",
        str(os.getpid()),
    ]
    # The notebook's modules must be found as the worker finds them.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    with open(log_file, "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
