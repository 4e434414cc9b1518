"""How many files, connections included, this process may have open."""

from __future__ import annotations

import contextlib
import resource

_MOST = 2**20
"""Where there is no limit, this is one: a table of files takes memory."""


def raise_open_files() -> int:
    """Let this process have as many files open as it may give itself; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
