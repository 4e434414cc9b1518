"""A process as it is known to all who share its machine, and whether it lives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Liveness(Enum):
    """Whether a process lives, as far as can be seen from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"  # it is where nobody here can look; never taken for gone


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """One process, told from all others on all machines.

    Attributes:
        pid: its number, in its own PID namespace.
        started: when it started, in seconds since its machine did; None where that is
            not known, and any process of that number is taken for it.
        boot_id: the machine and its present run, as the kernel numbers it; empty where
            that is not known, and this machine's run is meant.
        pid_namespace: inode of the namespace that `pid` is counted in; None where there
            are none, or where it is not known, and this process's own is meant.
    """

    pid: int
    started: float | None = None
    boot_id: str = ""
    pid_namespace: int | None = None
