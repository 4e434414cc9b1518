"""How much memory a GPU has, and how much of it is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jupyter_aistack.system.memory import available_bytes, installed_bytes

from .nvml import MEMORY_V2, NVML

_NONE = object()
"""The driver's answer where a GPU has no memory of its own."""


@dataclass(frozen=True, kw_only=True)
class GPUMemory:
    """The memory of one GPU.

    Attributes:
        total: all of it, in bytes, which the sizes of MIG profiles are parts of.
        usable: what processes can have: all of it but what the driver reserves for
            itself, where it tells that.
        used: what is in use of the latter; None where a GPU works in the host's memory,
            most of which others use for other things.
        free: what is free.
    """

    total: int
    usable: int
    used: int | None
    free: int


def memory_of(nvml: NVML, handle: Any, *, is_cut: bool) -> GPUMemory | None:
    """The memory of the GPU behind a handle; None where this user may not read it.

    A GPU without memory of its own (GB10, Jetson) answers "not supported": it works in
    the host's.

    Args:
        is_cut: MIG is on, so that it has memory of its own for certain.
    """
    ask = "nvmlDeviceGetMemoryInfo"
    answer = nvml.query(ask, handle, MEMORY_V2, default=None)
    if answer is None:
        answer = nvml.query(ask, handle, default=None, not_supported=_NONE)
    if answer is _NONE and not is_cut:
        return _of_host()
    if answer is None or answer is _NONE:
        return None
    reserved = getattr(answer, "reserved", 0)
    return GPUMemory(
        total=answer.total,
        usable=answer.total - reserved,
        used=answer.used,
        free=answer.free,
    )


def _of_host() -> GPUMemory:
    total = installed_bytes()
    free = min(available_bytes(), total)
    return GPUMemory(total=total, usable=total, used=None, free=free)
