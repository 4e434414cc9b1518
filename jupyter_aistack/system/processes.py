"""Processes of this host: which run, since when, and which descend from which.

Read straight from ``/proc`` where it exists (a hundred times cheaper than asking for
each process), else by psutil. What ``/proc`` does not show is not gone: it hides the
processes of others where it is mounted with ``hidepid``, and those of other PID
namespaces always.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Container, Mapping

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity

from .own_process import kept_for_life

_STATE = 0
_PARENT = 1
_USER_TICKS = 11
_SYSTEM_TICKS = 12
_THREADS = 17
_START_TICKS = 19
"""Places in ``/proc/PID/stat`` after the name; see proc(5), which counts from 1 and
begins with pid and name.
"""

_FIRST = 1
"""Number of the first process of a PID namespace, which lives as long as that does."""
_MAX_DEPTH = 64
_SAME_TICK = 0.5
"""Starts that are less of a tick apart are of one process. No more: a container that is
started again at once has the same numbers, PID namespace included."""
_SAME_SECONDS = 0.5
"""The same where psutil tells: it subtracts two clocks that are read apart."""


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the host did; None when it does not run
    or cannot be seen.

    Since boot and not since the epoch: a clock that is set must not make every process
    look like another.
    """
    fields = _stat(pid)
    if fields is not None:
        return _start_of(fields)
    return None if _has_proc() else _started_by_psutil(pid)


def _start_of(fields: list[bytes]) -> float:
    return int(fields[_START_TICKS]) / _ticks_per_second()


# -- who is who --------------------------------------------------------------------------


def identity_of(pid: int) -> ProcessIdentity:
    """A process of this PID namespace, as others may know it."""
    return ProcessIdentity(
        pid=pid,
        started=_own_start() if pid == os.getpid() else started_at(pid),
        boot_id=boot_id(),
        pid_namespace=pid_namespace(),
    )


@kept_for_life
def _own_start() -> float | None:
    return started_at(os.getpid())


@functools.cache
def boot_id() -> str:
    """What this machine's present run is called: the same in all its containers,
    another after each start. Without a kernel that tells, the time of the start.
    """
    content = _read("/proc/sys/kernel/random/boot_id")
    if content is not None:
        return content.decode().strip()
    import psutil

    return f"{os.uname().nodename}-{round(psutil.boot_time() / 60)}"


@kept_for_life
def pid_namespace() -> int | None:
    """Inode of this process's PID namespace; None where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def is_local(process: ProcessIdentity) -> bool:
    """Whether a process's number means the same process here: it is of this run of this
    machine, and of this PID namespace.
    """
    is_here = process.boot_id in ("", boot_id())
    return is_here and process.pid_namespace in (None, pid_namespace())


# -- whether it lives ------------------------------------------------------------------


def liveness(process: ProcessIdentity) -> Liveness:
    """Whether a process lives, as far as this process can see. A zombie does not, unless
    only its first thread has ended: the others may still use a device.

    A process of another machine, or of a PID namespace that is neither this process's
    own nor below it, is unknown.
    """
    if is_local(process):
        return _liveness_here(process.pid, process.started)
    if process.boot_id not in ("", boot_id()):
        return Liveness.UNKNOWN
    return _liveness_below(process)


def is_alive(pid: int, since: float | None) -> bool:
    """Whether process `pid` runs and started at `since` (None: at any time), so that it
    is no later process with the same id. A zombie does not run; one that is hidden
    does.
    """
    return _liveness_here(pid, since) is not Liveness.GONE


def _liveness_here(pid: int, since: float | None) -> Liveness:
    fields = _stat(pid)
    if fields is not None:
        return _liveness_by(fields, since)
    if not _has_proc():
        return _liveness_by_psutil(pid, since)
    # ``/proc`` shows it to nobody but its owner, or it is of another PID namespace.
    return _liveness_by_signal(pid)


def _liveness_by(fields: list[bytes], since: float | None) -> Liveness:
    is_first_thread_over = fields[_STATE] in (b"Z", b"X")
    if is_first_thread_over and int(fields[_THREADS]) <= 1:
        return Liveness.GONE
    tolerated = _SAME_TICK / _ticks_per_second()
    is_same = since is None or abs(_start_of(fields) - since) < tolerated
    return Liveness.ALIVE if is_same else Liveness.GONE


def _liveness_by_signal(pid: int) -> Liveness:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return Liveness.GONE
    except PermissionError:  # it is another user's
        return Liveness.ALIVE
    return Liveness.ALIVE


def _liveness_by_psutil(pid: int, since: float | None) -> Liveness:
    started = _started_by_psutil(pid)
    if started is None:
        return _liveness_by_signal(pid)
    is_same = since is None or abs(started - since) < _SAME_SECONDS
    return Liveness.ALIVE if is_same else Liveness.GONE


def _liveness_below(process: ProcessIdentity) -> Liveness:
    """Of a process in a PID namespace below this one: it has a number here too."""
    members, is_whole = _members_of(process.pid_namespace)
    pid = members.get(process.pid)
    if pid is not None:
        return _liveness_here(pid, process.started)
    is_seen_whole = is_whole and _FIRST in members
    return Liveness.GONE if is_seen_whole else Liveness.UNKNOWN


def _members_of(namespace: int | None) -> tuple[dict[int, int], bool]:
    """The processes of a PID namespace below this one, by their numbers in it: their
    numbers here; and whether none of them can be hidden.
    """
    members: dict[int, int] = {}
    is_whole = os.geteuid() == 0
    for pid in _listed():
        try:
            is_member = os.stat(f"/proc/{pid}/ns/pid").st_ino == namespace
        except PermissionError:
            is_whole = False
            continue
        except OSError:  # it has ended
            continue
        numbers = _numbers_of(pid) if is_member else []
        if numbers:
            members[numbers[-1]] = pid
    return members, is_whole


def _numbers_of(pid: int) -> list[int]:
    """What a process is numbered, from this PID namespace down to its own."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


# -- what it does ------------------------------------------------------------------------


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


def parents() -> dict[int, int]:
    """Each process's parent, for all processes that can be seen."""
    if not _has_proc():
        return _parents_by_psutil()
    by_pid = {pid: _parent_from_proc(pid) for pid in _listed()}
    return {pid: parent for pid, parent in by_pid.items() if parent is not None}


def _parent_from_proc(pid: int) -> int | None:
    if pid == os.getpid():
        return os.getppid()
    fields = _stat(pid)
    return None if fields is None else int(fields[_PARENT])


def _listed() -> list[int]:
    """The processes that ``/proc`` shows; none where it is of another PID namespace."""
    if not _is_proc_own():
        return []
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _stat(pid: int) -> list[bytes] | None:
    """The fields of ``/proc/PID/stat`` after the name; None when it cannot be read."""
    name = "self" if pid == os.getpid() else str(pid)
    if name != "self" and not _is_proc_own():
        return None
    content = _read(f"/proc/{name}/stat")
    # A name may hold spaces and brackets.
    return None if content is None else content.rpartition(b")")[2].split()


def _is_proc_own() -> bool:
    """Whether ``/proc`` counts processes as this process does. In a new PID namespace
    it shows those of the old one until it is mounted anew.
    """
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _has_proc() -> bool:
    return os.path.lexists("/proc/self")


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

    Names with one root share its processes. A root that lives and cannot be seen is
    left out: what is below it is not known.
    """
    parent_of = parents()
    below: dict[int, set[int]] = {
        root: set()
        for root in roots.values()
        if root in parent_of or not is_alive(root, None)
    }
    for pid in parent_of:
        root = _nearest(pid, below, parent_of)
        if root is not None:
            below[root].add(pid)
    return {
        name: frozenset(below[root]) for name, root in roots.items() if root in below
    }


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
    """Name of the program a process runs, without its arguments; empty when it cannot
    be seen.
    """
    return (_read(f"/proc/{pid}/comm") or b"").decode(errors="replace").strip()


def cgroup_of(pid: int) -> bytes:
    """The control groups a process is in, as Linux writes them; empty where that cannot
    be read.
    """
    return _read(f"/proc/{pid}/cgroup") or b""
