"""How much memory an AMD GPU has, how much of it is in use, and in which pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .amdsmi import AMDSMI

HOST_MEMORY_TYPES = frozenset({10, 11, 12, 13, 30, 31})
"""DDR2 to DDR5, LPDDR4 and LPDDR5 (``amdsmi_vram_type_t``): memory of a host. GPUs with
memory of their own have GDDR or HBM."""


class MemoryPool(StrEnum):
    """A pool of memory that a GPU works in, as ``AmdSmiMemoryType`` names it."""

    OWN = "VRAM"
    HOST = "GTT"


_USED_BY_PROCESS = {MemoryPool.OWN: "vram_mem", MemoryPool.HOST: "gtt_mem"}


@dataclass(frozen=True, kw_only=True)
class GPUMemory:
    """The memory of one GPU.

    Attributes:
        pool: in which it works.
        total: all of that, in bytes.
        used: what is in use of it; None where that cannot be known.
    """

    pool: MemoryPool
    total: int
    used: int | None


def memory_of(smi: AMDSMI, handle: Any) -> GPUMemory:
    """The memory of the GPU behind a handle.

    A GPU that is built into a processor (APU) has of its own only what the firmware sets
    aside, often 512 MiB. ROCm takes what is larger of that and of the part of the host's
    memory that the driver lets it map.

    Raises:
        ProviderError: it does not answer.
    """
    own = _total(smi, handle, MemoryPool.OWN)
    if own and not _is_in_host(smi, handle):
        return _in_pool(smi, handle, MemoryPool.OWN, own)

    ask = "amdsmi_get_gpu_memory_total"
    host = smi.query(ask, handle, smi.memory_type(MemoryPool.HOST), default=0)
    if host > own:
        return _in_pool(smi, handle, MemoryPool.HOST, host)
    return _in_pool(smi, handle, MemoryPool.OWN, own)


def used_by(process: Mapping[str, Any], pool: MemoryPool) -> int | None:
    """Bytes of a pool that a process on the library's list holds; None where the library
    does not say.
    """
    in_pool = process.get("memory_usage", {}).get(_USED_BY_PROCESS[pool])
    figures = (in_pool, process.get("mem"))
    known = [figure for figure in figures if isinstance(figure, int)]
    return next((figure for figure in known if figure), min(known, default=None))


def held_by(
    listed: Sequence[Mapping[str, Any]] | None,
    pids: frozenset[int] | None,
    pool: MemoryPool,
) -> int | None:
    """Bytes of a pool that some processes on the library's list hold together; None where
    either is not known.
    """
    if listed is None or pids is None:
        return None
    held = [used_by(process, pool) for process in listed if process["pid"] in pids]
    known = [size for size in held if size is not None]
    return sum(known) if len(known) == len(held) else None


def _is_in_host(smi: AMDSMI, handle: Any) -> bool:
    info = smi.query("amdsmi_get_gpu_vram_info", handle, default={})
    return info.get("vram_type") in HOST_MEMORY_TYPES


def _total(smi: AMDSMI, handle: Any, pool: MemoryPool) -> int:
    total: int = smi.query("amdsmi_get_gpu_memory_total", handle, smi.memory_type(pool))
    return total


def _in_pool(smi: AMDSMI, handle: Any, pool: MemoryPool, total: int) -> GPUMemory:
    ask = "amdsmi_get_gpu_memory_usage"
    used = smi.query(ask, handle, smi.memory_type(pool), default=None)
    return GPUMemory(pool=pool, total=total, used=used)
