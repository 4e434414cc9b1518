"""A lock by which one server moves a lease at a time, though several servers may manage
a kernel whose own server is gone.
"""

from __future__ import annotations

import os
import socket
import sys


def acquire(lease_id: str) -> socket.socket | None:
    """The lock of a lease, held until it is closed or this process ends, however it
    does; None while another process holds it.

    It is a name among the sockets of the host's network namespace (unix(7), "Abstract
    sockets"): nothing is left over. Other systems have no such names, and no driver
    that checkpoints.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if sys.platform == "linux":
            lock.bind(f"\0aistack-moves-{os.getuid()}-{lease_id}")
    except OSError:
        lock.close()
        return None
    return lock
