"""Ending a process and all it has started, each by its own pid and start time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

KILL_SECONDS = 5.0
"""How long killed processes may take to end: the driver frees a device's memory then."""
POLL_SECONDS = 0.01


def with_descendants(pid: int) -> list[psutil.Process]:
    """A process and those below it, the process first; none when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def send_kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; a process that is gone stays so, also where its pid is
    another's.
    """
    for process in processes:
        # Gone, or not this user's to end.
        with contextlib.suppress(psutil.Error):
            process.kill()


def killed(
    processes: Iterable[psutil.Process], seconds: float = KILL_SECONDS
) -> list[psutil.Process]:
    """Kill processes and wait for their end; those that have not ended by then."""
    left = list(processes)
    send_kill(left)
    deadline = time.monotonic() + seconds
    while left := [process for process in left if is_running(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    return left


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended with all its threads; one that its parent has not
    collected yet has.
    """
    try:
        is_first_thread_over = process.status() == psutil.STATUS_ZOMBIE
        is_over = is_first_thread_over and process.num_threads() <= 1
        return process.is_running() and not is_over
    except psutil.NoSuchProcess:
        return False
