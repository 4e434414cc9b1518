"""Whether a process's memory has left its device: what the driver says of it before and
after it was suspended.
"""

from __future__ import annotations

from dataclasses import dataclass

RESIDUE_BYTES = 2 << 20
"""A process that was checkpointed may stay listed, with nothing or with about 1 MiB
(NVIDIA/cuda-checkpoint#31).
"""
WORKSPACE_BYTES = 64 << 20
"""What cuBLAS keeps in a framework's pool: 32 MiB on Hopper, and as much for cuBLASLt
(torch, "cuBLAS workspaces").
"""


@dataclass(frozen=True, kw_only=True)
class DeviceUse:
    """What the driver says of a process's memory at one moment.

    Attributes:
        held_bytes: what it holds; 0 where it is listed with nothing or not listed, None
            where the driver does not say how much.
        used_bytes: what is in use on its devices, by whomever; None for unknown.
    """

    held_bytes: int | None = None
    used_bytes: int | None = None


def has_left(before: DeviceUse, after: DeviceUse) -> bool:
    """Whether what a process held is free now.

    The driver lists it with nothing, or not at all; or it keeps the figure to itself,
    and at least as much is free as the process held.
    """
    if after.held_bytes is not None:
        return after.held_bytes <= RESIDUE_BYTES
    is_known = before.used_bytes is not None and after.used_bytes is not None
    if not is_known or not before.held_bytes:
        return False
    assert before.used_bytes is not None
    assert after.used_bytes is not None
    freed = before.used_bytes - after.used_bytes
    return freed >= before.held_bytes - RESIDUE_BYTES


def staying_bytes(
    held_bytes: int | None,
    *,
    pool_bytes: int | None,
    context_bytes: int | None,
    contexts: int,
) -> int | None:
    """What may stay on a device when all that is registered has left it: contexts, with
    the code that libraries have loaded into them. None where that is not known.

    Args:
        held_bytes: what the processes held before.
        pool_bytes: how much of it was in the pools of frameworks; what lies beside them
            is the context. None where that is not known of all processes.
        context_bytes: what a bare context takes here.
        contexts: processes that have one.
    """
    if pool_bytes is not None and held_bytes is not None:
        return max(0, held_bytes - pool_bytes) + WORKSPACE_BYTES
    return None if context_bytes is None else context_bytes * max(1, contexts)
