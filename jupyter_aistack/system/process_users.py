"""Whose a process is, as the operating system says."""

from __future__ import annotations

from pathlib import Path

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
