"""Which of several devices lie nearest to each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, islice

from jupyter_aistack.core.model.device import Device

MOST_COMBINATIONS = 101
"""Choices compared at most: eight GPUs of twenty have 125,970."""


def best_connected(free: Sequence[Device], count: int) -> Sequence[Device]:
    """The `count` devices with the most NVLink between them, then the most in one PCIe
    domain, then best fit.

    `free` comes in the order of best fit; where there are very many choices only the
    first of them are compared.
    """
    if count == len(free) or not any(device.peers or device.domain for device in free):
        return free[:count]
    # max keeps the first of equals, so what is left to choose is the best fit.
    return max(islice(combinations(free, count), MOST_COMBINATIONS), key=_closeness)


def _closeness(devices: Sequence[Device]) -> tuple[int, int]:
    """How many pairs NVLink joins, and how many lie in one PCIe domain."""
    pairs = list(combinations(devices, 2))
    links = sum(first.id in second.peers for first, second in pairs)
    near = sum(_share_domain(first, second) for first, second in pairs)
    return links, near


def _share_domain(first: Device, second: Device) -> bool:
    return bool(first.domain) and first.domain == second.domain
