"""Processes of this host: who lives, since when, and who descends from whom.

Read straight from ``/proc`` where there is one (a hundred times cheaper than asking for each process), else by psutil.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the epoch; None when it does not run."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_alive(pid: int, since: float | None) -> bool:
    """Whether process `pid` runs and is the one that started at `since` (None: any). A zombie does not run."""
    import psutil

    try:
        process = psutil.Process(pid)
        same = since is None or abs(process.create_time() - since) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def parents() -> dict[int, int]:
    """Each process's parent, for all processes that can be seen."""
    try:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:
        return _parents_by_psutil()
    found = {pid: _parent_from_proc(pid) for pid in pids}
    return {pid: parent for pid, parent in found.items() if parent is not None}


def _parent_from_proc(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2]  # a name may hold spaces and brackets
    except OSError:
        return None
    return int(after_name.split()[1])


def _parents_by_psutil() -> dict[int, int]:
    import psutil

    return {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}


def ancestors(pid: int) -> list[int]:
    """`pid`, its parent, its parent's parent, ..., up to the first process."""
    above, line = parents(), [pid]
    while (parent := above.get(line[-1])) and parent not in line:
        line.append(parent)
    return line


def tree(roots: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """The processes below each root, the root included; a process below two roots belongs to the nearer one."""
    above = parents()
    names = {pid: name for name, pid in roots.items()}
    found: dict[str, set[int]] = {name: set() for name in roots}
    for pid in above:
        current, seen = pid, 0
        while current not in names and current in above and seen < 64:
            current, seen = above[current], seen + 1
        if current in names:
            found[names[current]].add(pid)
    return {name: frozenset(pids) for name, pids in found.items()}


def own_threads() -> list[int]:
    """Ids of this process's threads (Linux); the process id alone elsewhere."""
    try:
        return [int(entry) for entry in os.listdir("/proc/self/task")]
    except OSError:
        return [os.getpid()]
