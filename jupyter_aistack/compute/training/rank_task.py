"""The Dask task that runs a rank: has it forked, watches it, ends it. The worker itself
never touches torch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from jupyter_aistack.system.processes import is_alive, started_at

from .job import ForkRequest, RankExit, TrainingJob, exit_file, pid_file
from .run_folder import has_owner

POLL_SECONDS = 0.02
KILL_SECONDS = 2.0
"""How long the end of a rank that was killed may take to arrive."""


def run_rank(job: TrainingJob) -> RankExit:
    """Run one rank to its end, as a Dask task."""
    job.job_file.write_text(job.to_json())
    request = ForkRequest(
        job_file=job.job_file,
        out_file=job.out_file,
        log_file=job.log_file,
        python_path=list(sys.path),
    )
    process = RankProcess(_request_fork(request), job.job_file)
    try:
        was_stopped = _await_end(process, job)
    finally:
        process.signal(signal.SIGKILL)
    return RankExit(code=process.poll(), was_stopped=was_stopped)


def _await_end(process: RankProcess, job: TrainingJob) -> bool:
    """Wait for the rank's end, and bring it about once the notebook says so or is gone;
    returns whether it had to.
    """
    stopped_at: float | None = None
    while process.poll() is None:
        grace = _grace_seconds(job)
        if grace is not None:
            now = time.monotonic()
            if stopped_at is None:
                stopped_at = now
                process.signal(signal.SIGTERM)
            if now - stopped_at >= grace:
                process.signal(signal.SIGKILL)
            if now - stopped_at >= grace + KILL_SECONDS:
                # It waits for a disk, and ends when that answers.
                break
        time.sleep(POLL_SECONDS)
    return stopped_at is not None


def _grace_seconds(job: TrainingJob) -> float | None:
    """How long after its stop a rank may still run; None while it is not to stop."""
    try:
        return float(job.stop_file.read_text())
    except FileNotFoundError:
        is_wanted = job.job_file.exists() and has_owner(job.owner_file)
        return None if is_wanted else 0.0


class RankProcess:
    """A rank, as far as its fork server tells."""

    def __init__(self, server: subprocess.Popen[bytes], job_file: Path) -> None:
        self._server = server
        self._pid_file = pid_file(job_file)
        self._exit_file = exit_file(job_file)
        self._pid: int | None = None
        self._started: float | None = None

    def poll(self) -> int | None:
        """The exit status; None while it runs. A rank does not outlive its fork
        server.
        """
        # Asked before the file is read: a server may write the status and end in
        # between, and the rank would pass for killed.
        server_is_gone = self._server.poll() is not None
        self._read_pid()
        with contextlib.suppress(FileNotFoundError):
            return int(self._exit_file.read_text())
        return -signal.SIGKILL if server_is_gone else None

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is not None or self._pid is None:
            return
        if is_alive(self._pid, self._started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _read_pid(self) -> None:
        """Keep the pid: the folder may be removed while the rank runs."""
        if self._pid is None:
            with contextlib.suppress(FileNotFoundError):
                pid = int(self._pid_file.read_text())
                self._started = started_at(pid)
                self._pid = pid


_server: subprocess.Popen[bytes] | None = None
"""This worker's fork server."""

_lock = threading.Lock()


def _request_fork(request: ForkRequest) -> subprocess.Popen[bytes]:
    """Send a request to this worker's fork server, which is started if need be."""
    global _server
    line = request.to_json().encode() + b"\n"
    with _lock:
        if _server is not None and _server.poll() is None:
            # A server that ended for lack of use a moment ago takes no request.
            with contextlib.suppress(BrokenPipeError):
                return _send(_server, line)
        _server = _start_server(request.log_file)
        return _send(_server, line)


def _send(server: subprocess.Popen[bytes], line: bytes) -> subprocess.Popen[bytes]:
    assert server.stdin is not None
    server.stdin.write(line)
    server.stdin.flush()
    return server


def _start_server(log_file: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.compute.training.fork_server",
        str(os.getpid()),
    ]
    # The notebook's modules must be found as the worker finds them.
    python_path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": python_path},
            start_new_session=True,
        )
