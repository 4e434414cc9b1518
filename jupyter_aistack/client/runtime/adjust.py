"""Having a running process follow what its lease may use now: memory caps of frameworks,
and how many threads they start.

Cores, and what a driver holds, are changed from outside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jupyter_aistack.core.enforcement.memory_caps import CAPS

from .attach import limit_threads
from .memory_caps import cap_memory

_OURS = "AISTACK_"
_THREADS = ("_NUM_THREADS", "_MAXIMUM_THREADS")
_COUNT = "OMP_NUM_THREADS"


def adjustable(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the variables that a lease comes with those that a running process can
    follow.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in CAPS or name.endswith(_THREADS)
    }


def adjust(granted: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Follow what a lease allows now. What the user has set lower stays.

    Args:
        granted: as `adjustable` gives it.
        before: the same, as this process followed it last.
    """
    changed = {
        name: value
        for name, value in granted.items()
        if _is_to_follow(name, os.environ.get(name), value, before.get(name))
    }
    os.environ.update(changed)
    cap_memory(os.environ)
    limit_threads(changed.get(_COUNT))


def _is_to_follow(name: str, own: str | None, value: str, before: str | None) -> bool:
    """Whether a variable is ours, or is higher than what is granted now."""
    if own is None:
        return False
    is_ours = name.startswith(_OURS) or own == before
    return is_ours or _is_higher(own, value)


def _is_higher(own: str, value: str) -> bool:
    try:
        return float(own) > float(value)
    except ValueError:  # a form of the framework's own: a share where bytes are granted
        return False
