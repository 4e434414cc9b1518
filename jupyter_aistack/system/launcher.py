"""What this process was started with by whoever started it: what the launcher was
allowed is the most that is granted.

A process with a lease of ours, or a kernel whose devices were hidden, was given less
than its launcher has. That is no narrowing of the host: what counts is the nearest
process above it that was given nothing of ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .processes import ancestors

MARKS = ("AISTACK_LEASE", "AISTACK_KERNEL")
"""Variables of a process that was given a slice, or had its devices hidden."""
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """The process that says what may be granted.

    Attributes:
        pid: its id.
        environment: what it was started with.
    """

    pid: int
    environment: Mapping[str, str]


def launcher(proc: Path = PROC) -> Launcher:
    """This process where it was given nothing of ours, else the nearest such process
    above it.

    Where that cannot be found out it is this process all the same: what it sees is
    less than what may be granted, and never more.
    """
    own = Launcher(pid=os.getpid(), environment=dict(os.environ))
    if not _is_marked(own.environment):
        return own
    for pid in ancestors(os.getpid()):
        environment = _started_with(pid, proc)
        if environment is None:
            return own
        if not _is_marked(environment):
            return Launcher(pid=pid, environment=environment)
    return own


def allowed_cores(proc: Path = PROC) -> tuple[int, ...]:
    """The cores that the launcher may run on, ascending."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(os.cpu_count() or 1))
    pid = launcher(proc).pid
    if pid == os.getpid() and _is_marked(os.environ):
        # A lease that was taken in this very process binds it: its parent is not bound.
        pid = os.getppid() if _is_own_start_clean(proc) else pid
    try:
        return tuple(sorted(os.sched_getaffinity(pid)))
    except OSError:
        return tuple(sorted(os.sched_getaffinity(0)))


def _is_own_start_clean(proc: Path) -> bool:
    environment = _started_with(os.getpid(), proc)
    return environment is not None and not _is_marked(environment)


def _is_marked(environment: Mapping[str, str]) -> bool:
    return any(environment.get(name) for name in MARKS)


def _started_with(pid: int, proc: Path) -> dict[str, str] | None:
    """The environment that a process was started with, whatever it has changed since;
    None where it cannot be read.
    """
    try:
        content = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    entries = (entry.partition(b"=") for entry in content.split(b"\0") if entry)
    return {
        os.fsdecode(name): os.fsdecode(value)
        for name, separator, value in entries
        if separator
    }
