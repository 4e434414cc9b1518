"""Whose a process is, as the operating system says."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity

from .processes import is_local, liveness

_EFFECTIVE = 2
"""Place of the effective user in the ``Uid`` line of ``/proc/PID/status``."""


def uid_of(pid: int) -> int | None:
    """The user that a process acts as; None when it cannot be seen.

    Not the owner of ``/proc/PID``: that may be root for a process that has changed its
    user since it was started (proc(5), ``suid_dumpable``).
    """
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[_EFFECTIVE])
    return None


def uid_of_same(process: ProcessIdentity) -> int | None:
    """As `uid_of`, of that process and no later one of its number; None too where it
    has ended, is counted elsewhere, or could be any of that number.
    """
    if process.started is None or not is_local(process):
        return None
    uid = uid_of(process.pid)
    # Asked afterwards: until then the number was that process's.
    return uid if liveness(process) is Liveness.ALIVE else None
