"""How much frameworks may take of a GPU slice, from what a process on it will see."""

from __future__ import annotations

import math

from jupyter_aistack.core.enforcement import memory_caps as names
from jupyter_aistack.core.model.context_memory import headroom_bytes
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.units import MIB

from . import mig

JAX_SHARE = 0.95
"""Of a framework's share, what JAX may take at its start: it takes all of it at once,
and XLA needs some beside.
"""


def caps(
    slice_bytes: int, total_bytes: int, context_bytes: int | None = None
) -> dict[str, str]:
    """Variables that make frameworks stay within `slice_bytes` of a device on which
    they see `total_bytes`.

    Each framework's pool gets the slice less a headroom for the driver's context, which
    lies outside any pool and takes `context_bytes` where that was measured.
    CuPy and JAX read their own variables; torch, TensorFlow, RMM and vLLM have none
    that all their versions take, so `jupyter_aistack.client.runtime.memory_caps`
    applies those that begin with AISTACK.
    """
    pool = slice_bytes - headroom_bytes(slice_bytes, context_bytes)
    share = min(1.0, pool / total_bytes) if total_bytes else 1.0
    return {
        names.SHARE: _floor(share),
        names.RMM_BYTES: str(pool // 256 * 256),  # RMM takes multiples of 256 alone
        names.TENSORFLOW_MIB: str(max(1, pool // MIB)),
        names.CUPY: str(pool),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        names.JAX: _floor(
            share * JAX_SHARE
        ),  # a share of the total, not of what is free
    }


def seen_bytes(
    slice_: Slice, device_bytes: int, level: Enforcement = Enforcement.L0
) -> int:
    """Bytes of memory a process is shown as the total of a slice's device.

    A MIG instance shows its own, and a limit of its cgroup shows as the whole (L3);
    under MPS and where nothing but good will holds, the total is that of the GPU,
    whatever may be allocated (measured by ai-dynamo/dynamo).
    """
    if slice_.kind is SliceKind.MIG:
        return mig.memory_seen(slice_)
    return slice_.memory_bytes if level is Enforcement.L3 else device_bytes


def for_suspension(lease: Lease) -> dict[str, str]:
    """Variables for a lease that may be suspended: what JAX or TensorFlow took in
    advance would be moved as well.

    See JAX's "GPU memory allocation" and TensorFlow's "Use a GPU".
    """
    return {} if lease.residence is None else dict(_GROWING)


_GROWING = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def _floor(share: float) -> str:
    """A share with six decimals, never above `share`, never zero."""
    return f"{max(math.floor(share * 1e6), 1) / 1e6:.6f}"
