"""The process at the other end of a Unix socket, as the operating system names it.

Nothing a client says of itself has to be believed, so no secret is needed.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

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
