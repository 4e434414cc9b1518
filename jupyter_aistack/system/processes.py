"""Processes of this host: which run, since when, and which descend from which.

Read straight from ``/proc`` where it exists (a hundred times cheaper than asking for
each process), else by psutil.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Container, Mapping

_STATE = 0
_PARENT = 1
_USER_TICKS = 11
_SYSTEM_TICKS = 12
_START_TICKS = 19
"""Places in ``/proc/PID/stat`` after the name; see proc(5), which counts from 1 and
begins with pid and name.
"""

_MAX_DEPTH = 64
_SAME_SECONDS = 0.5
"""Starts that are no further apart are of one process: clocks and ticks are rounded."""

_LEASE = b"AISTACK_LEASE="


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the host did; None when it does not run.

    Since boot and not since the epoch: a clock that is set must not make every process
    look like another.
    """
    fields = _stat(pid)
    if fields is not None:
        return int(fields[_START_TICKS]) / _ticks_per_second()
    return None if _has_proc() else _started_by_psutil(pid)


def is_alive(pid: int, since: float | None) -> bool:
    """Whether process `pid` runs and started at `since` (None: at any time), so that it
    is no later process with the same id. A zombie does not run.
    """
    fields = _stat(pid)
    if fields is not None and fields[_STATE] in (b"Z", b"X"):
        return False
    started = started_at(pid)
    if started is None or since is None:
        return started is not None
    return abs(started - since) < _SAME_SECONDS


def cpu_seconds(pid: int) -> float | None:
    """CPU time a process has demanded so far: what its threads used, and what its first
    thread was runnable for without a CPU.

    None where that cannot be read.
    """
    fields = _stat(pid)
    if fields is None:
        return None
    ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return ticks / _ticks_per_second() + _run_delay_seconds(pid)


def state_of(pid: int) -> str:
    """What a process does, by the kernel's letter: ``T`` for stopped, ``D`` for a wait
    for a disk, ...; empty where that cannot be read.
    """
    fields = _stat(pid)
    return "" if fields is None else fields[_STATE].decode()


def _run_delay_seconds(pid: int) -> float:
    """Seconds that a process's first thread was runnable and did not run; 0 where the
    system does not count them.
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def current_user() -> str:
    """Login name of this process's owner, or its uid where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def groups_of(user: str) -> frozenset[str]:
    """Names of the Unix groups a login is in; none where the system does not know
    it.
    """
    try:
        import grp
        import pwd

        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except (ImportError, KeyError, OSError):
        return frozenset()
    names = set()
    for number in numbers:
        with contextlib.suppress(KeyError):  # a group without a name
            names.add(grp.getgrgid(number).gr_name)
    return frozenset(names)


def parents() -> dict[int, int]:
    """Each process's parent, for all processes that can be seen."""
    try:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:
        return _parents_by_psutil()
    by_pid = {pid: _parent_from_proc(pid) for pid in pids}
    return {pid: parent for pid, parent in by_pid.items() if parent is not None}


def _parent_from_proc(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[_PARENT])


def _stat(pid: int) -> list[bytes] | None:
    """The fields of ``/proc/PID/stat`` after the name; None when it cannot be read."""
    content = _read(f"/proc/{pid}/stat")
    # A name may hold spaces and brackets.
    return None if content is None else content.rpartition(b")")[2].split()


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _has_proc() -> bool:
    return os.path.isdir("/proc/self")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _started_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time() - psutil.boot_time())
    except psutil.Error:
        return None


def _parents_by_psutil() -> dict[int, int]:
    import psutil

    return {
        process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])
    }


def ancestors(pid: int) -> list[int]:
    """`pid`, its parent, its parent's parent, ..., up to the first process."""
    # Not `parents()`: most processes are of no interest here.
    parent_of = _parent_from_proc if _has_proc() else _parents_by_psutil().get
    line = [pid]
    while True:
        parent = parent_of(line[-1])
        if not parent or parent in line:
            return line
        line.append(parent)


def tree(roots: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """The processes below each root, the root included; a process below two roots
    belongs to the nearer root.

    Names with one root share its processes.
    """
    parent_of = parents()
    below: dict[int, set[int]] = {root: set() for root in roots.values()}
    for pid in parent_of:
        root = _nearest(pid, below, parent_of)
        if root is not None:
            below[root].add(pid)
    return {name: frozenset(below[root]) for name, root in roots.items()}


def _nearest(
    pid: int, roots: Container[int], parent_of: Mapping[int, int]
) -> int | None:
    """The first of `roots` on the way from a process to its ancestors; None for none."""
    current = pid
    # Bounded: a process that ends while parents are read may leave a circle.
    for _ in range(_MAX_DEPTH):
        if current in roots:
            return current
        if current not in parent_of:
            return None
        current = parent_of[current]
    return current if current in roots else None


def program_of(pid: int) -> str:
    """Name of the program a process runs, without its arguments; empty when it is
    gone.
    """
    return (_read(f"/proc/{pid}/comm") or b"").decode(errors="replace").strip()


def leases_named_by(pid: int) -> frozenset[str]:
    """Ids of the leases that a process was started with, as its environment says; none
    where that cannot be read.

    The user that starts a process chooses its environment, so believe it of that user's
    own leases only.
    """
    entries = (_read(f"/proc/{pid}/environ") or b"").split(b"\0")
    for entry in entries:
        if entry.startswith(_LEASE):
            text = entry.removeprefix(_LEASE).decode(errors="replace")
            return frozenset(text.split(",")) - {""}
    return frozenset()


def uid_of(pid: int) -> int | None:
    """The user a process belongs to; None when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def cgroup_of(pid: int) -> bytes:
    """The control groups a process is in, as Linux writes them; empty where that cannot
    be read.
    """
    return _read(f"/proc/{pid}/cgroup") or b""


def own_threads() -> list[int]:
    """Ids of this process's threads (Linux); the process id alone elsewhere."""
    try:
        return [int(entry) for entry in os.listdir("/proc/self/task")]
    except OSError:
        return [os.getpid()]
