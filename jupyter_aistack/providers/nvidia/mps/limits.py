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


def multiprocessors_at_most(
    total: int, share_percent: int, *, protocol: int
) -> int | None:
    """Multiprocessors a process may see that has `share_percent` of `total` (0:
    unknown); None when unknown.

    They come in pairs. Protocol 3 rounds down: of 188, 50 % are 94 and 25 % are 46
        (measured, ai-dynamo/dynamo).
    Protocol 2 is documented to round up to what the hardware can do.
    """
    if not total:
        return None
    pairs = total * share_percent / 200
    return 2 * (math.floor(pairs) or 1 if protocol == 3 else math.ceil(pairs))


def slots(driver: int) -> int:
    """Processes that can share one GPU under MPS, by the driver's major version (0:
    unknown).
    """
    return SLOTS_SINCE_615 if driver >= NAMESPACES_DRIVER else SLOTS
