"""How much of the host's memory is available."""

from __future__ import annotations

from . import cgroup


def available_bytes() -> int:
    """Bytes that can be used without swapping another process out, nor reaching a
    container's limit.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    limit = cgroup.memory_limit()
    used = cgroup.memory_used()
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used))
