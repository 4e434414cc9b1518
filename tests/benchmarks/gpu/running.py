"""One section as a process of its own: it is heard while it runs, cut when it overruns,
and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from tests.benchmarks.gpu.bench import Row

MARK = "AISTACK_SUITE"
"""The variable by which whatever a section starts is known, though it left the
section's process tree as daemons do.
"""
HELPER = "jupyter_aistack.providers.nvidia.checkpoint.helper"
TIDY_SECONDS, GRACE_SECONDS = 8.0, 3.0
HELPER_SECONDS = 30.0
"""The checkpoint helper is never killed: amid an operation that would leave driver and
process at odds (criu#2547).
"""


def run_section(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    show: Callable[[Row], None],
) -> list[Row]:
    """The rows of one section, each shown when it is there. However it ends, the last
    row says how if not well.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    begin, result = time.monotonic(), list[Row]()
    process = subprocess.Popen(
        command,
        env={**environment, MARK: mark},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def take(row: Row) -> None:
        result.append(row)
        show(row)

    try:
        is_over = _hear(process, begin + seconds, take)
        if not is_over:
            take(
                Row(
                    name="cut",
                    says=f"cut after its {seconds:.0f} s; what is above was measured",
                )
            )
        elif process.wait() != 0:
            take(
                Row(
                    name="failed",
                    says=f"failed: its process ended with {process.returncode}",
                )
            )
    finally:
        left = end_all(process, mark)
    if left:
        take(
            Row(
                name="left_behind",
                value=float(len(left)),
                says="; ".join(left),
                most=0.0,
            )
        )
    return result


def _hear(
    process: subprocess.Popen[str], until: float, take: Callable[[Row], None]
) -> bool:
    """Take rows until the process has ended (True) or the time is up (False)."""
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
        row = _row(line)
        if row is not None:
            take(row)


def _row(line: str) -> Row | None:
    """The row on a line; None for something else that a library printed."""
    try:
        return Row(**json.loads(line))
    except (ValueError, TypeError):
        return None


def end_all(process: subprocess.Popen[str], mark: str) -> list[str]:
    """End the section and what it has started, each by its pid; a line for each that
    would not go.

    The section goes first and may tidy up: what it feeds through pipes, the checkpoint
        helper too, ends by itself.
    """
    for end in (process.terminate, process.kill):
        if process.poll() is None:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TIDY_SECONDS)
    alive: list[psutil.Process] = []
    for word in ("", "terminate", "kill"):
        others = marked(mark)
        for other in others:
            with contextlib.suppress(psutil.NoSuchProcess):
                if word and not _is_helper(other):
                    getattr(other, word)()
        _, alive = psutil.wait_procs(others, timeout=GRACE_SECONDS)
        if not alive:
            return []
    _, alive = psutil.wait_procs(alive, timeout=HELPER_SECONDS)
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
