"""Binding a kernel's process to its cores, and finding out from inside whether it got
what it was promised.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import Verdict, not_verified
from jupyter_aistack.system.verify.child import IsClient, verify


def bind_process(pid: int, cores: Sequence[int]) -> None:
    """Let every thread of a process run on `cores` alone; threads and children it
    starts later inherit that.

    A process that has ended already is left alone, and so is one on a system without
    CPU affinity.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(OSError):
        os.sched_setaffinity(
            pid, cores
        )  # first the main thread, so that no new thread escapes the list below
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)


def check(
    expects: Expectation,
    *,
    pid: int,
    command: Sequence[str],
    environment: Mapping[str, str],
    is_client: IsClient | None = None,
) -> Verdict:
    """Compare a promise with what a child with the kernel's interpreter, environment
    and affinity sees.

    Call it in a thread of its own: the thread takes on the kernel's affinity, for the
        child to inherit.

    Returns:
        As :func:`jupyter_aistack.system.verify.child.verify`.
    """
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, os.sched_getaffinity(pid))
        except OSError as error:
            return not_verified(type(error).__name__, time.time())
    return verify(
        expects,
        interpreter=_interpreter(command),
        environment=environment,
        is_client=is_client,
    )


def _interpreter(command: Sequence[str]) -> str:
    """The kernel's own Python; ours for kernels in other languages or behind a
    launcher.
    """
    program = command[0] if command else ""
    return program if Path(program).name.startswith("python") else sys.executable
