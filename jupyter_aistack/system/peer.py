"""The process at the other end of a Unix socket, as the operating system names it.

Nothing a client says of itself has to be believed, so no secret is needed.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from .users import is_first_user_namespace

_OVERFLOW_FILE = Path("/proc/sys/kernel/overflowuid")
_OVERFLOW = 65534
"""What Linux calls a user that has no number, unless it is told otherwise."""

_CREDENTIALS = struct.Struct("3i")
"""``struct ucred`` of Linux: pid, uid and gid."""


class Peer(NamedTuple):
    """Who connected.

    Attributes:
        pid: the process; 0 when it is in a process namespace that cannot be seen.
        uid: its user.
    """

    pid: int
    uid: int

    @property
    def is_own_user(self) -> bool:
        """Whether it is this process's user, and that can be told.

        In a user namespace all users that have no number there share one, which may
        be this process's own.
        """
        return self.uid == os.getuid() and not self.is_ambiguous

    @property
    def is_ambiguous(self) -> bool:
        """Whether its number may stand for many users."""
        return self.uid == overflow_uid() and not is_first_user_namespace()


def has_peer_credentials() -> bool:
    """Whether this system can tell who is at the other end of a socket (Linux)."""
    return hasattr(socket, "SO_PEERCRED")


def peer_of(connection: socket.socket) -> Peer:
    """The process at the other end of a connected Unix socket."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return Peer(pid, uid)


def overflow_uid() -> int:
    """What users are called here that have no number in this user namespace."""
    try:
        return int(_OVERFLOW_FILE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _OVERFLOW
