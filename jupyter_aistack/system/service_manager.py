"""What systemd and a service of it say to each other, without its library; see
sd_notify(3) and sd_listen_fds(3). Without systemd nothing is said.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"

_FIRST_DESCRIPTOR = 3
"""The first of the descriptors that a service is given, ``SD_LISTEN_FDS_START``."""


def notify(*states: str) -> bool:
    """Tell systemd what this service does; whether there is one that was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract name
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(address)
            manager.sendall("\n".join(states).encode())
    except OSError:
        return False
    return True


def status_text(text: str) -> str:
    """A state that says in a line what the service does, for ``systemctl status``."""
    return "STATUS=" + " ".join(text.split())


def watchdog_seconds() -> float | None:
    """Within how many seconds systemd wants to hear that this process is alive; None
    where it does not ask.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    is_for_this = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not microseconds.isdigit() or int(microseconds) == 0 or not is_for_this:
        return None
    return int(microseconds) / 1e6


def inherited_listener(path: Path) -> socket.socket | None:
    """The Unix socket at `path` that systemd listens on for this process; None where it
    has made none there.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return None
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        listener = _listener(descriptor)
        if listener is None:
            continue
        if listener.getsockname() == str(path):
            os.set_inheritable(descriptor, False)
            listener.setblocking(False)
            return listener
        listener.detach()
    return None


def _listener(descriptor: int) -> socket.socket | None:
    """The Unix socket behind a descriptor; None where it is something else."""
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError:
        return None
    is_unix_stream = (listener.family, listener.type) == (
        socket.AF_UNIX,
        socket.SOCK_STREAM,
    )
    if is_unix_stream:
        return listener
    listener.detach()
    return None
