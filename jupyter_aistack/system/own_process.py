"""What this process is, by the system that runs it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_kept: dict[Callable[[], Any], Any] = {}


def kept_for_life(look: Callable[[], T | None]) -> Callable[[], T | None]:
    """`look`, for a fact of this process that never changes while it lives: looked up
    once, and anew in a forked child. What cannot be seen yet (None) is looked up again.
    """

    @functools.wraps(look)
    def known() -> T | None:
        value: T | None = _kept.get(look)
        if value is None:
            value = look()
            if value is not None:
                _kept[look] = value
        return value

    return known


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_kept.clear)


def own_threads() -> list[int]:
    """Ids of this process's threads (Linux); the process id alone elsewhere."""
    try:
        return [int(entry) for entry in os.listdir("/proc/self/task")]
    except OSError:
        return [os.getpid()]
