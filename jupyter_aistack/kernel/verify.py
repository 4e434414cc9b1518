"""Binding a kernel's process to its cores, and finding out from inside whether it got
what it was promised.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import Verdict, not_verified
from jupyter_aistack.system.verify.child import IsClient, verify

from .allocation import KernelAllocation
from .environment import expected
from .kernel_leases import KernelLeases


def bind_process(pid: int, cores: Sequence[int]) -> None:
    """Let every thread of a process run on `cores` alone; threads and children it
    starts later inherit that.

    A process that has ended already is left alone, and so is a process on a system
    without CPU affinity.
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


def check_in_background(
    leases: KernelLeases,
    allocation: KernelAllocation,
    *,
    pid: int,
    command: Sequence[str],
    environment: Mapping[str, str],
    on_done: Callable[[], None],
    on_failure: Callable[[Exception], None],
) -> None:
    """Check in a thread of its own what a kernel got, and write it down.

    Args:
        leases: where it is written down.
        allocation: what the kernel was given.
        pid: its process.
        command, environment: what it was started with.
        on_done, on_failure: called from that thread.
    """
    prepared = allocation.prepared
    assert prepared is not None

    def run() -> None:
        try:
            verified, condition = check(
                expected(prepared, environment),
                pid=pid,
                command=command,
                environment=environment,
                is_client=lambda child: leases.is_client(allocation, child),
            )
            leases.activate(allocation, verified=verified, condition=condition)
            on_done()
        except Exception as error:
            on_failure(error)

    threading.Thread(target=run, name="aistack-check", daemon=True).start()


def _interpreter(command: Sequence[str]) -> str:
    """The kernel's own Python; ours for kernels in other languages or behind a
    launcher.
    """
    program = command[0] if command else ""
    return program if Path(program).name.startswith("python") else sys.executable
