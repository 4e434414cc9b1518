"""What a process was started as: its file, and what its environment says of kernels and
leases.
"""

from __future__ import annotations

import os

_LEASE = b"AISTACK_LEASE="
_KERNEL = b"AISTACK_KERNEL="


def installed_program_of(pid: int) -> str:
    """Name of the file that a process runs, where that is root's and nobody else may
    change it; else empty, also where it cannot be seen.
    """
    link = f"/proc/{pid}/exe"
    try:
        status = os.stat(link)
        path = os.readlink(link)
    except OSError:
        return ""
    is_installed = status.st_uid == 0 and not status.st_mode & 0o022
    return os.path.basename(path) if is_installed else ""


def kernel_named_by(pid: int) -> str:
    """The kernel that a process is, or that has started it, as its environment says;
    empty where that cannot be read or says nothing.
    """
    return _variable_of(pid, _KERNEL)


def leases_named_by(pid: int) -> frozenset[str]:
    """Ids of the leases that a process was started with, as its environment says; none
    where that cannot be read.

    The user that starts a process chooses its environment, so believe it of that user's
    own leases only.
    """
    return frozenset(_variable_of(pid, _LEASE).split(",")) - {""}


def _variable_of(pid: int, assignment: bytes) -> str:
    """The value behind ``NAME=`` in the environment a process was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return ""
    for entry in entries:
        if entry.startswith(assignment):
            return entry.removeprefix(assignment).decode(errors="replace")
    return ""
