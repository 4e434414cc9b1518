"""A share of a GPU in the driver's terms: percent of its multiprocessors, MiB of its
memory.
"""

from __future__ import annotations

import math
from fractions import Fraction

from jupyter_aistack.core.model.units import MIB

STRAY_PERCENT = 1
STRAY_MIB = 256
"""What a process gets that reaches an MPS server, but no namespace of a lease: next to
nothing.
"""
PAIR = 2
LARGEST_UNIT = 18
"""Multiprocessors of the largest cluster (GPC) of a GPU (NVIDIA H100 architecture
white paper)."""
HOPPER = (9, 0)
SLOTS = 48
SLOTS_SINCE_615 = 60
"""Processes the MPS server of one GPU takes (NVIDIA MPS documentation: 48 contexts from
Volta on, 60 in r615).
"""
LIMITS_DRIVER = 495
"""First driver whose MPS limits memory (CUDA 11.5, NVIDIA MPS documentation)."""
NAMESPACES_DRIVER = 615
"""First driver whose MPS has namespaces (NVIDIA MPS documentation, release 615)."""


def percent(fraction: Fraction) -> int:
    """The whole percent nearest below a share, and at least 1."""
    return max(1, math.floor(100 * fraction))


def limit_mib(memory_bytes: int) -> int:
    """Whole MiB within `memory_bytes`, and at least 1."""
    return max(1, memory_bytes // MIB)


def multiprocessor_unit(capability: tuple[int, ...]) -> int | None:
    """How many multiprocessors are granted together by a compute capability; None where
    that is unknown, as the capability (0, 0) is.

    Pairs up to Ada: 10 % of the 40 of a T4 are 4 (NVIDIA/k8s-device-plugin#679). From
    Hopper on nobody has measured it.
    """
    return PAIR if (0, 0) < capability < HOPPER else None


def multiprocessors_at_most(
    total: int, share_percent: int, *, protocol: int, unit: int | None = PAIR
) -> int | None:
    """Multiprocessors a process may see that has `share_percent` of `total` (0:
    unknown); None when unknown.

    Protocol 3 rounds down to pairs: of 188, 50 % are 94 and 25 % are 46 (measured,
        ai-dynamo/dynamo).
    Protocol 2 is documented to round up to what the hardware can do, which is `unit`
        (see `multiprocessor_unit`); where that is unknown, no more than a cluster.
    """
    if not total:
        return None
    share = total * share_percent / 100
    if protocol == 3:
        return PAIR * (math.floor(share / PAIR) or 1)
    if unit is None:
        return min(total, math.ceil(share) + LARGEST_UNIT - 1)
    return min(total, unit * math.ceil(share / unit))


def slots(driver: int) -> int:
    """Processes that can share one GPU under MPS, by the driver's major version (0:
    unknown).
    """
    return SLOTS_SINCE_615 if driver >= NAMESPACES_DRIVER else SLOTS
