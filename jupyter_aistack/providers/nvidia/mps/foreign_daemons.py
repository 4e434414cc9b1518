"""MPS daemons of this host that are not ours."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from .control import PROGRAM

PROC = Path("/proc")
_AS_DAEMON = {b"-d", b"-f", b"--daemon", b"--foreground"}


def foreign_daemon(ours: Collection[int], proc: Path = PROC) -> str:
    """Another MPS daemon, for people: ``process 4711 of bob``; empty when none is
    seen.
    """
    for pid in sorted(int(entry) for entry in _entries(proc) if entry.isdecimal()):
        if pid not in ours and _is_daemon(proc / str(pid)):
            return f"process {pid}{_of_whom(proc / str(pid))}"
    return ""


def _entries(proc: Path) -> list[str]:
    try:
        return os.listdir(proc)
    except OSError:
        return []


def _is_daemon(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    # The first word, or one of the next where the first is an interpreter.
    is_control = any(word.rpartition(b"/")[2] == PROGRAM.encode() for word in words[:3])
    return is_control and not _AS_DAEMON.isdisjoint(words)


def _of_whom(process: Path) -> str:
    import pwd

    try:
        return f" of {pwd.getpwuid(process.stat().st_uid).pw_name}"
    except (OSError, KeyError):
        return ""
