"""How much of the host's memory is there to be used."""

from __future__ import annotations

from . import cgroup


def available_bytes() -> int:
    """Bytes that can be had without anybody being swapped out, nor a container's limit
    being reached.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    limit = cgroup.memory_limit()
    used = cgroup.memory_used()
    return (
        available
        if limit is None or used is None
        else max(0, min(available, limit - used))
    )
