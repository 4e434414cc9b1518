"""From what a lease grants to what a Dask worker needs. Nothing is started here.

Why not ``dask_cuda.LocalCUDACluster``: it names workers by device, so two can never
share one, and takes its limits
from the parent GPU of a MIG instance. The same parts, given absolute bytes, serve
slices of every kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from jupyter_aistack.core.enforcement.memory_caps import (
    RMM_BYTES,
    SHARE,
    TENSORFLOW_MIB,
)
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.exceptions import ClusterError

from .worker_plugins import RMMCeiling, SliceGuard

SPILL_SHARE = 0.8
"""Share of a GPU slice that Dask may fill before it spills to the host: CUDA's context
and torch need the rest.
"""


def is_gpu(slices: Sequence[Slice], preparation: Preparation) -> bool:
    """Whether a real GPU stands behind a lease."""
    is_simulated = preparation.enforced_by == Enforcement.SIMULATED.value
    return not is_simulated and any(piece.kind is not SliceKind.CPU for piece in slices)


def nanny_options(
    slices: Sequence[Slice],
    preparation: Preparation,
    *,
    host_memory_bytes: int,
    threads: int | None = None,
) -> dict[str, Any]:
    """Keyword arguments of the ``distributed.Nanny`` of a worker on these slices.

    Args:
        slices: what was granted.
        preparation: what the worker's process must be given.
        host_memory_bytes: host memory a GPU worker may use (a CPU slice brings its
            own).
        threads: tasks at once; by default one per core of a CPU slice, and one on a
            GPU.

    Raises:
        ClusterError: a GPU slice, but dask-cuda is not installed.
    """
    if (
        is_gpu(slices, preparation)
        and "ROCR_VISIBLE_DEVICES" in preparation.environment
    ):
        return _amd_options(slices, preparation, host_memory_bytes, threads or 1)
    if is_gpu(slices, preparation):
        return _gpu_options(slices, preparation, host_memory_bytes, threads or 1)
    return _cpu_options(
        preparation, host_memory_bytes, threads or max(1, len(preparation.cores))
    )


def check_nanny(
    slices: Sequence[Slice], preparation: Preparation, wanted: Mapping[str, Any]
) -> None:
    """Refuse what these slices cannot carry among a user's own arguments of a nanny.

    Raises:
        ClusterError: another protocol than TCP on parts of GPUs: there is no CUDA IPC
            or NVLink between MIG instances, and with shares two workers may be on one
            GPU.
    """
    protocol = str(wanted.get("protocol") or "tcp").removesuffix("://")
    is_part = any(piece.kind not in (SliceKind.CPU, SliceKind.GPU) for piece in slices)
    if is_gpu(slices, preparation) and is_part and protocol not in ("tcp", "tls"):
        raise ClusterError(
            f"protocol: {protocol} needs whole GPUs; leave it out (tcp), or make a cluster of slice 1"
        )


def withheld(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What undoes, in a worker, that it inherits from the slice of its notebook: caps,
    and the way to an MPS server.

    A worker on a whole GPU would otherwise be a client of the server that holds its
    notebook to a share of another one.

    Args:
        own: the notebook's environment.
        given: what the worker's own lease gives it, which stands.
    """
    ours = {SHARE: "", RMM_BYTES: "", TENSORFLOW_MIB: ""}
    if own.get("AISTACK_LEASE"):  # elsewhere it is the way to a daemon of the host's
        ours["CUDA_MPS_PIPE_DIRECTORY"] = os.devnull
    return {
        name: value for name, value in ours.items() if name in own and name not in given
    }


def _cpu_options(
    preparation: Preparation, host_memory_bytes: int, threads: int
) -> dict[str, Any]:
    is_simulated = preparation.enforced_by == Enforcement.SIMULATED.value
    limit = host_memory_bytes if is_simulated else preparation.memory_limit_bytes
    return {
        "nthreads": threads,
        "memory_limit": limit or None,
        # Without this a CPU worker on a GPU host shows the first GPU's figures as its
        # own.
        "env": {**preparation.environment, "CUDA_VISIBLE_DEVICES": ""},
        "config": _without_nvml(),
        "plugins": (SliceGuard(preparation),),
    }


def _gpu_options(
    slices: Sequence[Slice],
    preparation: Preparation,
    host_memory_bytes: int,
    threads: int,
) -> dict[str, Any]:
    try:
        from dask_cuda.device_host_file import DeviceHostFile
    except (
        ImportError
    ) as error:  # also raised where it is installed without cuda-bindings
        raise ClusterError(
            f"workers on GPU slices need dask-cuda: pip install 'jupyter_aistack[gpu]' ({error})"
        ) from error
    device_bytes = sum(
        piece.memory_bytes for piece in slices if piece.kind is not SliceKind.CPU
    )
    spill = {
        "device_memory_limit": int(device_bytes * SPILL_SHARE),
        "memory_limit": host_memory_bytes,
    }
    return {
        "nthreads": threads,
        "memory_limit": host_memory_bytes,
        "env": dict(preparation.environment),
        "resources": {"GPU": _gpus(slices)},
        "data": (DeviceHostFile, spill),
        "preload": ["dask_cuda.initialize"],
        "preload_argv": ["--create-cuda-context"],
        "plugins": _plugins(slices, preparation),
    }


def _amd_options(
    slices: Sequence[Slice],
    preparation: Preparation,
    host_memory_bytes: int,
    threads: int,
) -> dict[str, Any]:
    """A plain worker that sees its AMD GPUs: dask-cuda speaks CUDA alone, so nothing is
    spilled from them.
    """
    return {
        "nthreads": threads,
        "memory_limit": host_memory_bytes,
        "env": dict(preparation.environment),
        "config": _without_nvml(),
        "resources": {"GPU": _gpus(slices)},
        "plugins": (SliceGuard(preparation),),
    }


def _gpus(slices: Sequence[Slice]) -> float:
    return float(
        sum(piece.fraction for piece in slices if piece.kind is not SliceKind.CPU)
    )


def _plugins(slices: Sequence[Slice], preparation: Preparation) -> tuple[Any, ...]:
    guard = SliceGuard(preparation)
    return (
        (guard, RMMCeiling(_rmm_bytes(slices, preparation)))
        if find_spec("rmm")
        else (guard,)
    )


def _rmm_bytes(slices: Sequence[Slice], preparation: Preparation) -> int:
    """What RMM may allocate on the worker's device: a share leaves room in its slice
    for CUDA's context.
    """
    own = min(piece.memory_bytes for piece in slices if piece.kind is not SliceKind.CPU)
    return min(own, int(preparation.environment.get(RMM_BYTES, own)))


def _without_nvml() -> dict[str, Any]:
    """Dask's settings, but for this one: a nanny replaces whole sections with what it
    is given.
    """
    import dask

    settings: dict[str, Any] = dask.config.merge(
        dask.config.config, {"distributed": {"diagnostics": {"nvml": False}}}
    )
    return settings
