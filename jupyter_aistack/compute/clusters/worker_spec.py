"""From what a lease grants to what a Dask worker needs. Nothing is started here.

Why not ``dask_cuda.LocalCUDACluster``: it names workers by device, so two can never
share a device, and takes its limits from the parent GPU of a MIG instance. The same
parts, given absolute bytes, serve slices of every kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import detached_environment
from jupyter_aistack.core.enforcement.memory_caps import (
    RMM_BYTES,
    SHARE,
    TENSORFLOW_MIB,
)
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.exceptions import ClusterError
from jupyter_aistack.system.runtimes import (
    blindly_hidden_environment,
    installed_visibilities,
)

from .worker_plugins import RMMCeiling, SliceGuard

CUDA = "CUDA"
"""The runtime that dask-cuda speaks."""
SPILL_SHARE = 0.8
"""Share of a GPU slice that Dask may fill before it spills to the host: CUDA's context
and torch need the rest.
"""


def is_gpu(slices: Sequence[Slice], preparation: Preparation) -> bool:
    """Whether a real GPU stands behind a lease."""
    return not _is_simulated(preparation) and bool(_gpu_slices(slices))


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
    if not is_gpu(slices, preparation):
        cores = max(1, len(preparation.cores))
        return _cpu_options(preparation, host_memory_bytes, threads or cores)
    options = _dask_cuda_options if _has_cuda(preparation) else _plain_gpu_options
    return options(slices, preparation, host_memory_bytes, threads or 1)


def check_nanny(
    slices: Sequence[Slice], preparation: Preparation, arguments: Mapping[str, Any]
) -> None:
    """Refuse what these slices cannot carry among a user's own arguments of a nanny.

    Raises:
        ClusterError: another protocol than TCP on parts of GPUs: there is no CUDA IPC
            or NVLink between MIG instances, and with shares two workers may be on one
            GPU.
    """
    protocol = str(arguments.get("protocol") or "tcp").removesuffix("://")
    whole = (SliceKind.CPU, SliceKind.GPU)
    is_part = any(slice_.kind not in whole for slice_ in slices)
    is_part_of_gpu = is_part and is_gpu(slices, preparation)
    if is_part_of_gpu and protocol not in ("tcp", "tls"):
        raise ClusterError(
            f"protocol: {protocol} needs whole GPUs; leave it out (tcp), or make a cluster of slice 1"
        )


def withheld(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What undoes, in a worker, that it inherits from the slice of its notebook: caps,
    and the way to an MPS server.

    A worker on a whole GPU would otherwise be a client of the server that holds its
    notebook to a share of another GPU.

    Args:
        own: the notebook's environment.
        given: what the worker's own lease gives it, which stands.
    """
    neutral = {SHARE: "", RMM_BYTES: "", TENSORFLOW_MIB: ""}
    if own.get("AISTACK_LEASE"):
        # Without a lease it is the way to a daemon of the host's.
        neutral.update(detached_environment(installed_visibilities()))
    inherited = own.keys() - given.keys()
    return {name: value for name, value in neutral.items() if name in inherited}


def _cpu_options(
    preparation: Preparation, host_memory_bytes: int, threads: int
) -> dict[str, Any]:
    limit = preparation.memory_limit_bytes
    if _is_simulated(preparation):
        limit = host_memory_bytes
    return {
        "nthreads": threads,
        "memory_limit": limit or None,
        # Without this a CPU worker on a GPU host shows the first GPU's figures as its
        # own.
        "env": {**preparation.environment, **blindly_hidden_environment()},
        "config": _without_nvml(),
        "plugins": (SliceGuard(preparation),),
    }


def _dask_cuda_options(
    slices: Sequence[Slice],
    preparation: Preparation,
    host_memory_bytes: int,
    threads: int,
) -> dict[str, Any]:
    try:
        from dask_cuda.device_host_file import DeviceHostFile
    except ImportError as error:
        # Also raised where it is installed without cuda-bindings.
        raise ClusterError(
            f"workers on GPU slices need dask-cuda: pip install 'jupyter_aistack[gpu]' ({error})"
        ) from error
    device_bytes = sum(slice_.memory_bytes for slice_ in _gpu_slices(slices))
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


def _plain_gpu_options(
    slices: Sequence[Slice],
    preparation: Preparation,
    host_memory_bytes: int,
    threads: int,
) -> dict[str, Any]:
    """A plain worker that sees its GPUs: dask-cuda speaks CUDA alone, so nothing is
    spilled from those of other runtimes.
    """
    return {
        "nthreads": threads,
        "memory_limit": host_memory_bytes,
        "env": dict(preparation.environment),
        "config": _without_nvml(),
        "resources": {"GPU": _gpus(slices)},
        "plugins": (SliceGuard(preparation),),
    }


def _has_cuda(preparation: Preparation) -> bool:
    runtimes = [each.runtime for each in preparation.visibility]
    return any(runtime is not None and runtime.name == CUDA for runtime in runtimes)


def _is_simulated(preparation: Preparation) -> bool:
    return preparation.enforced_by == Enforcement.SIMULATED


def _gpu_slices(slices: Sequence[Slice]) -> list[Slice]:
    return [slice_ for slice_ in slices if slice_.kind is not SliceKind.CPU]


def _gpus(slices: Sequence[Slice]) -> float:
    """How many GPUs these slices are together, as a Dask resource."""
    return float(sum(slice_.fraction for slice_ in _gpu_slices(slices)))


def _plugins(slices: Sequence[Slice], preparation: Preparation) -> tuple[Any, ...]:
    guard = SliceGuard(preparation)
    if find_spec("rmm") is None:
        return (guard,)
    return (guard, RMMCeiling(_rmm_bytes(slices, preparation)))


def _rmm_bytes(slices: Sequence[Slice], preparation: Preparation) -> int:
    """What RMM may allocate on the worker's device: a share leaves some of its slice to
    CUDA's context.
    """
    own = min(slice_.memory_bytes for slice_ in _gpu_slices(slices))
    return min(own, int(preparation.environment.get(RMM_BYTES, own)))


def _without_nvml() -> dict[str, Any]:
    """Dask's settings with its NVML diagnostics off: a nanny replaces whole sections
    with what it is given.
    """
    import dask

    without = {"distributed": {"diagnostics": {"nvml": False}}}
    settings: dict[str, Any] = dask.config.merge(dask.config.config, without)
    return settings
