"""Kernels whose server has ended: any server of the same user takes care of their
state.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from jupyter_aistack.broker.liveness import root_pid
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.system.processes import is_alive


def is_orphan(lease: Lease, proc: Path = Path("/proc")) -> bool:
    """Whether a lease's process runs, is ours, and the server that started it answers
    no more.

    Which server that was is in the process's environment, as the socket it was given.
    """
    root = root_pid(lease.holder)
    if root is None or not is_alive(root, None) or not _is_ours(proc / str(root)):
        return False
    path = _socket_of(proc / str(root) / "environ")
    return path != "" and not _answers(path)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _socket_of(environ: Path) -> str:
    try:
        entries = environ.read_bytes().split(b"\0")
    except OSError:
        return ""
    paths = (
        entry.partition(b"=")[2]
        for entry in entries
        if entry.startswith(b"AISTACK_SOCKET=")
    )
    return os.fsdecode(next(paths, b""))


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # its queue is full: it is there
            return True
        except OSError:
            return False
        return True
