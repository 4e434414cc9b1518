"""How much memory the host has, and how much of it is available; in a container, of
what the container may use.
"""

from __future__ import annotations

from . import cgroup


def total_bytes() -> int:
    """Bytes that this process and its neighbours may use together."""
    import psutil

    total = int(psutil.virtual_memory().total)
    return min(total, cgroup.memory_limit() or total)


def available_bytes() -> int:
    """Bytes that can be used without swapping another process out, nor reaching the
    limit of any control group that this process is in.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    left = cgroup.memory_left()
    return available if left is None else max(0, min(available, left))
