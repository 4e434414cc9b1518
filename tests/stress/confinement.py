"""Namespaces of a container's, entered by a process that was forked already."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable
from enum import StrEnum

_NEW_MOUNTS = 0x00020000
_NEW_HOSTNAME = 0x04000000
_NEW_PIDS = 0x20000000
_PRIVATE = 1 << 18 | 1 << 14
"""``MS_PRIVATE`` of this mount and, by ``MS_REC``, of all below it."""
_DEATH_SIGNAL = 1


class Confinement(StrEnum):
    """Where a process runs."""

    NONE = "none"
    CONTAINER = "container"  # PIDs and a host name of its own
    BLIND = "blind"  # the same, but /proc shows the processes outside


def run_confined(
    confinement: Confinement, hostname: str, tell: Callable[[int], None], work: Steps
) -> None:
    """Run `work` where it is to run, and end this process as that ends.

    Args:
        tell: is given the pid of the process that works, as it is numbered here.
    """
    if confinement is Confinement.NONE:
        tell(os.getpid())
        work()
        return
    _call("unshare", _NEW_PIDS | _NEW_HOSTNAME | _NEW_MOUNTS)
    pid = os.fork()
    if pid == 0:
        _work_inside(confinement, hostname, work)
    tell(pid)
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code < 0:
        os.kill(os.getpid(), -exit_code)
    os._exit(exit_code)


def _work_inside(confinement: Confinement, hostname: str, work: Steps) -> None:
    """As the first process of a PID namespace; returns never."""
    exit_code = 1
    try:
        _call("prctl", _DEATH_SIGNAL, signal.SIGKILL)
        socket.sethostname(hostname)
        if confinement is Confinement.CONTAINER:
            _call("mount", b"none", b"/", None, _PRIVATE, None)
            _call("mount", b"proc", b"/proc", b"proc", 0, None)
        work()
        exit_code = 0
    finally:
        os._exit(exit_code)


def _call(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


Steps = Callable[[], None]
