"""A process that is heard while it runs, cut when it overruns, and leaves nothing
behind. Nothing here is of the package: the package may be what fails.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

MARK = "AISTACK_SUITE"
"""The variable by which whatever a section starts is known, though it left the
section's process tree as daemons do.
"""
HELPER = "jupyter_aistack.providers.nvidia.checkpoint.helper"
TIDY_SECONDS, GRACE_SECONDS, LEAST_GRACE = 8.0, 3.0, 0.2
HELPER_SECONDS = 30.0
"""The checkpoint helper is never killed: amid an operation that would leave driver and
process at odds (criu#2547).
"""
BUDGET_KEPT, SHARE_KEPT = 30.0, 0.1
"""What of a budget is kept for tidying up: so long, or that share of a small one."""
PROGRAMS = ("/usr/local/nvidia/bin", "/usr/local/cuda/bin", "/usr/sbin")
"""Where the programs of the driver are, beside PATH: images of GPU machines keep them
there.
"""


def kept(budget: float) -> float:
    """Seconds of a budget that are kept for tidying up."""
    return min(BUDGET_KEPT, SHARE_KEPT * budget)


def search_path() -> str:
    """PATH, with the folders of the driver's programs."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *PROGRAMS])


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a process ended.

    Attributes:
        is_cut: its time was up.
        status: its exit status; None for one that was cut.
        left: a line for each process of its that would not go.
    """

    is_cut: bool
    status: int | None
    left: tuple[str, ...]


def run_marked(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    take: Callable[[str], None],
    *,
    tidy_seconds: float = TIDY_SECONDS,
    latest: float = math.inf,
) -> Ending:
    """Run a command for so long at most, and end what it leaves behind.

    Args:
        take: is given each line of its output when it is there.
        tidy_seconds: what it gets to tidy up once it is told to end.
        latest: when all must be over, on the monotonic clock.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    until = time.monotonic() + seconds
    process = subprocess.Popen(
        command,
        env={**environment, MARK: mark},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    is_over = False
    try:
        is_over = _hear(process, until, take)
        if is_over:
            process.wait()
    finally:
        left = end_all(process, mark, tidy_seconds=tidy_seconds, latest=latest)
    status = process.returncode if is_over else None
    return Ending(is_cut=not is_over, status=status, left=tuple(left))


def _hear(
    process: subprocess.Popen[str], until: float, take: Callable[[str], None]
) -> bool:
    """Take lines until the process has ended (True) or the time is up (False)."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return False
        if line is None:
            return True
        take(line)


def end_all(
    process: subprocess.Popen[str],
    mark: str,
    *,
    tidy_seconds: float = TIDY_SECONDS,
    latest: float = math.inf,
) -> list[str]:
    """End the section and what it has started, each by its pid; a line for each that
    would not go.

    The section goes first and may tidy up: what it feeds through pipes, the checkpoint
        helper too, ends by itself. Near the latest moment each gets less time to go.
    """

    def within(seconds: float) -> float:
        return max(LEAST_GRACE, min(seconds, latest - time.monotonic()))

    for end in (process.terminate, process.kill):
        if process.poll() is None:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(within(tidy_seconds))
    alive: list[psutil.Process] = []
    for word in ("", "terminate", "kill"):
        others = marked(mark)
        for other in others:
            with contextlib.suppress(psutil.NoSuchProcess):
                if word and not _is_helper(other):
                    getattr(other, word)()
        _, alive = psutil.wait_procs(others, timeout=within(GRACE_SECONDS))
        if not alive:
            return []
    _, alive = psutil.wait_procs(alive, timeout=within(HELPER_SECONDS))
    return [f"{other.pid} {' '.join(_command(other))[:80]}" for other in alive]


def marked(mark: str) -> list[psutil.Process]:
    """This user's processes with that mark in their environment."""
    return [
        each for each in psutil.process_iter() if _environment(each).get(MARK) == mark
    ]


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        result: Mapping[str, str] = process.environ()
    except psutil.Error:  # another user's, or gone
        return {}
    return result


def _command(process: psutil.Process) -> list[str]:
    try:
        result: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return result


def _is_helper(process: psutil.Process) -> bool:
    return HELPER in _command(process)
