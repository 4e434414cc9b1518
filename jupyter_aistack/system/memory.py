"""How much memory the host has, and how much of it is available; in a container, of
what the container may use.
"""

from __future__ import annotations

from . import cgroup


def installed_bytes() -> int:
    """Bytes of memory that the machine has, whatever a container may use of it."""
    import psutil

    return int(psutil.virtual_memory().total)


def total_bytes() -> int:
    """Bytes that this process and its neighbours may use together."""
    total = installed_bytes()
    return min(total, cgroup.memory_limit() or total)


def available_bytes(host_bytes: int | None = None) -> int:
    """Bytes that can be used without swapping another process out, nor reaching the
    limit of any control group that this process is in.

    Args:
        host_bytes: what the machine may have in all, where that is more than it has now:
            a virtual machine whose memory grows as it is used.
    """
    import psutil

    memory = psutil.virtual_memory()
    available = int(memory.available)
    if host_bytes is not None:
        available += max(0, host_bytes - int(memory.total))
    left = cgroup.memory_left()
    return available if left is None else max(0, min(available, left))
