"""MIG instances: the hardware partitions an administrator cut a GPU into, as NVML's attributes describe them."""

from __future__ import annotations

import math
import re
from typing import Any

from ..core.device import Enforcement, MIGInstance, Slice
from ..core.units import MIB
from .nvml import NVML

_COMPUTE_INSTANCE = re.compile(r"(\d)c\.(\d)g\.")
_NAME = re.compile(r"MIG (\S+)$")


def instance_handles(nvml: NVML, gpu: Any) -> tuple[Any, ...]:
    """Handles of a GPU's instances; the driver numbers them with holes."""
    most = nvml.query("nvmlDeviceGetMaxMigDeviceCount", gpu, default=0)
    slots = (nvml.query("nvmlDeviceGetMigDeviceHandleByIndex", gpu, slot, not_found=None) for slot in range(most))
    return tuple(handle for handle in slots if handle is not None)


def describe(nvml: NVML, handle: Any, gpu_bytes: int) -> MIGInstance:
    """The instance behind a handle. `gpu_bytes` is all memory of its GPU; 0 where this user may not read it."""
    attributes = nvml.query("nvmlDeviceGetAttributes_v2", handle)
    whole = max(attributes.gpuInstanceSliceCount, 1)
    own = attributes.computeInstanceSliceCount or whole
    memory_bytes = attributes.memorySizeMB * MIB
    named = _NAME.search(nvml.query("nvmlDeviceGetName", handle, default="")) if not gpu_bytes else None
    return MIGInstance(
        uuid=nvml.query("nvmlDeviceGetUUID", handle),
        profile=named[1] if named else profile_name(whole, own, memory_bytes, gpu_bytes or memory_bytes),
        # Compute instances of one GPU instance share its memory; each is counted with its part.
        memory_bytes=memory_bytes * own // whole,
        multiprocessors=attributes.multiprocessorCount,
    )


def profile_name(gpu_slices: int, compute_slices: int, memory_bytes: int, gpu_bytes: int) -> str:
    """NVIDIA's name for a MIG shape, such as ``1g.18gb`` for 16 GiB of an H200.

    The number is no size: it is the share of the GPU's memory in eighths, rounded up, of its GiB, rounded up.
    """
    eighths = math.ceil(8 * memory_bytes / gpu_bytes) if gpu_bytes else 8
    gigabytes = math.floor(eighths / 8 * math.ceil(gpu_bytes / 2**30) + 0.5)
    compute = f"{compute_slices}c." if compute_slices != gpu_slices else ""
    return f"{compute}{gpu_slices}g.{gigabytes}gb"


def shares_memory(piece: Slice) -> bool:
    """Whether a slice is a compute instance (``1c.2g.35gb``), whose memory is its neighbours' too."""
    return enforcement(piece.profile) is Enforcement.L0


def enforcement(profile: str) -> Enforcement:
    """What holds a slice of this MIG profile: hardware, but for a compute instance (``1c.2g.35gb``) only its cores."""
    return Enforcement.L0 if _COMPUTE_INSTANCE.match(profile) else Enforcement.L4


def memory_seen(piece: Slice) -> int:
    """Bytes a process on this instance is shown: for a compute instance, all of its GPU instance's."""
    parts = _COMPUTE_INSTANCE.match(piece.profile)
    return piece.memory_bytes * int(parts[2]) // int(parts[1]) if parts else piece.memory_bytes
