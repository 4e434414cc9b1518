"""What a process was started as: its file, its command, and what its environment says of
kernels and leases.
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


def command_of(pid: int) -> str:
    """The command line of a process; empty where it cannot be seen, or there is none."""
    words = _read(pid, "cmdline").split(b"\0")
    return " ".join(word.decode(errors="replace") for word in words if word)


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
    entries = _read(pid, "environ").split(b"\0")
    for entry in entries:
        if entry.startswith(assignment):
            return entry.removeprefix(assignment).decode(errors="replace")
    return ""


def _read(pid: int, name: str) -> bytes:
    """A file of ``/proc``; empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
