"""Forks ranks: ``python -m jupyter_aistack.compute.training.fork_server PARENT``, one
process beside each Dask worker that trains.

Importing torch takes seconds. The fork server does it once and forks each rank from
there, so that every run but the first starts in a tenth of a second. It has imported,
never computed: no CUDA context, no OpenMP pool and no autograd thread, none of which
survives a fork.

On standard input it reads one :class:`~jupyter_aistack.compute.training.job.ForkRequest`
a line. For each it writes a file with the rank's pid, and when the rank has ended
another with its exit status.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from jupyter_aistack.system.files import write_atomic

from .job import ForkRequest, exit_file, pid_file

POLL_SECONDS = 0.02
READ_BYTES = 65536
END_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36
IDLE_SECONDS = 600.0
"""A fork server without a rank ends after this, for the memory's sake; the next run
starts another.
"""


def main() -> None:
    """Serve until the worker is gone or nothing has run for long."""
    parent = int(sys.argv[1])
    _import_libraries()
    ForkServer(parent).serve()
    os._exit(0)


class ForkServer:
    """Forks a rank for each request on standard input, and reaps them.

    Args:
        parent: pid of the worker; the server ends with it.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._jobs: dict[int, Path] = {}
        self._unread = b""
        self._used_at = time.monotonic()

    def serve(self) -> None:
        """Fork and reap until the worker is gone; then end the ranks that still run."""
        _adopt_orphans()
        while self._is_needed() and self._read_requests():
            self._reap()
            if self._jobs:
                self._used_at = time.monotonic()
        for pid in list(self._jobs):
            _kill_group(pid)
        _end_children()

    def _is_needed(self) -> bool:
        is_idle = time.monotonic() - self._used_at >= IDLE_SECONDS
        return os.getppid() == self._parent and not is_idle

    def _read_requests(self) -> bool:
        """Wait a moment for requests and carry them out; False at the end of input."""
        if not select.select([sys.stdin.fileno()], [], [], POLL_SECONDS)[0]:
            return True
        received = os.read(sys.stdin.fileno(), READ_BYTES)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            request = ForkRequest.from_json(line)
            self._jobs[fork(request)] = request.job_file
        return bool(received)

    def _reap(self) -> None:
        """Write down which ranks have ended, and how; what a rank has started ends with
        it.
        """
        for pid in list(self._jobs):
            # Looked at first and reaped last: until then its number is nobody else's.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            _write(exit_file(self._jobs.pop(pid)), str(code))
        adopted = _children() - self._jobs.keys()
        if not self._jobs:
            _kill(adopted)
        _reap(adopted)


def _adopt_orphans() -> None:
    """Become the parent of what a rank leaves behind (Linux), so that it can be ended
    also where it has left the rank's process group.
    """
    with contextlib.suppress(AttributeError):  # no such call in this system's library
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _kill_group(rank: int) -> None:
    """End a rank and what it has started in its own session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(rank, signal.SIGKILL)


def _end_children() -> None:
    """End all that is left below this process, as far as that takes no long wait."""
    deadline = time.monotonic() + END_SECONDS
    while (children := _children()) and time.monotonic() < deadline:
        _kill(children)
        _reap(children)
        time.sleep(POLL_SECONDS / 4)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _reap(pids: Iterable[int]) -> None:
    """Collect those that have ended."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _children() -> set[int]:
    """This process's children (Linux)."""
    own = os.getpid()
    try:
        text = Path(f"/proc/{own}/task/{own}/children").read_text()
    except OSError:
        return set()
    return {int(pid) for pid in text.split()}


def _write(file: Path, text: str) -> None:
    """Write for the worker, unless the run's folder is gone: nobody reads it then."""
    with contextlib.suppress(OSError):
        write_atomic(file, text)


def fork(request: ForkRequest) -> int:
    """Fork one rank and write its pid down; returns the pid."""
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_rank(request, server)
    _write(pid_file(request.job_file), str(pid))
    return pid


def _run_rank(request: ForkRequest, server: int) -> NoReturn:
    """In the child: cut the ties to the fork server and run the rank."""
    from . import rank

    try:
        # Ctrl-C in a terminal goes to whole process groups, and stopping is the
        # notebook's to do.
        os.setsid()
        _redirect(Path(os.devnull), 0)
        _redirect(request.out_file, 1)
        _redirect(request.log_file, 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.path[:] = request.python_path
        rank.main(request.job_file, server)
    finally:
        os._exit(1)


def _redirect(path: Path, descriptor: int) -> None:
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


def _import_libraries() -> None:
    import cloudpickle  # noqa: F401
    import torch
    import torch.nn.parallel

    from . import context, rank  # noqa: F401

    torch.set_num_threads(1)
    # The first optimizer imports as much again.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


if __name__ == "__main__":
    main()
