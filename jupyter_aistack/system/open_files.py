"""How many files and connections this process may have open."""

from __future__ import annotations

import contextlib
import resource


def allow_open_files(wanted: int) -> int:
    """Have this process open so many files, as far as it may allow itself; how many it
    may open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if now == resource.RLIM_INFINITY else now
