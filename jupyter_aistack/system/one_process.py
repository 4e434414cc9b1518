"""A claim that one process of a user on this machine can hold, without any file."""

from __future__ import annotations

import os
import socket
import sys


def claim(name: str) -> socket.socket | None:
    """Hold `name` until the socket is closed or this process has ended; None where
    another process holds it, or there are no such names.

    It is the name of an abstract socket, which Linux frees with the process: no disk is
    needed for it. Containers with a network of their own have names of their own.
    """
    if sys.platform != "linux":
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0{name}-{os.getuid()}")
    except OSError:
        held.close()
        return None
    return held
