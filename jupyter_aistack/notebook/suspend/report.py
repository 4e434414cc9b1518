"""What in this process stands in the way of moving its device state, reported to the
server that would move it.

Nothing is imported that is not there already, and nothing here starts CUDA.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

from jupyter_aistack.notebook.module_names import OFFLOAD_REGISTRY
from jupyter_aistack.system.runtimes import started_runtime

JSON = dict[str, Any]
IPC_HANDLE_BYTES = 64
"""``CU_IPC_HANDLE_SIZE`` of cuda.h."""
MAX_RESOURCES = 16
"""Memory resources of RMM that may stand on each other, before it is taken for a
circle.
"""
LINKED_WITH_CUPTI = frozenset({"torch", "jax", "jaxlib", "tensorflow"})
"""Libraries with which CUPTI is loaded though nothing is profiled (pytorch#157381)."""

OTHER_ALLOCATORS = frozenset(
    {"jax", "tensorflow", "cudf", "rmm", "numba.cuda", "pycuda", "onnxruntime", "vllm"}
)
"""Libraries that take device memory outside the pools of torch and CuPy."""


def trim() -> None:
    """Drop garbage and free what torch and CuPy keep cached: cached blocks would be
    copied like live blocks.
    """
    gc.collect()
    torch_cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if torch_cuda is not None and torch_cuda.is_initialized():
        torch_cuda.empty_cache()
    cupy = sys.modules.get("cupy")
    if cupy is not None and hasattr(cupy, "get_default_memory_pool"):
        cupy.get_default_memory_pool().free_all_blocks()


def report(kinds: Collection[str]) -> JSON:
    """What stands in the way.

    Args:
        kinds: kinds of devices (``cuda``, ``cpu``) whose registered objects count.

    Returns:
        ``cuda``: it has started; ``managed``: who uses managed memory, which the driver
            does not checkpoint; ``nccl``: a communicator lives; ``ipc``: device memory
            is shared with another process; ``graphs``: live CUDA graphs;
            ``profiler``: the profiler that runs; ``links_cupti``: a library is loaded
            that brings CUPTI along, used or not; ``registered_bytes``: what
            `offloadable` objects hold on devices; ``pool_bytes``: what torch and CuPy
            have taken of devices for their pools, None where another library is loaded
            that takes memory of its own.
    """
    return {
        "cuda": started_runtime() == "CUDA",
        "managed": managed(),
        "nccl": has_communicator(),
        "ipc": shares_memory(),
        "graphs": graphs(),
        "profiler": profiler(),
        "links_cupti": not LINKED_WITH_CUPTI.isdisjoint(sys.modules),
        "registered_bytes": _registered_bytes(kinds),
        "pool_bytes": pool_bytes(),
    }


def managed() -> str:
    """The library that has allocated managed memory, or would unasked; empty for none.

    cuDF under pandas and RMM's managed pools, CuPy's managed allocator, bitsandbytes'
    paged optimizers.
    """
    if "cudf.pandas" in sys.modules:
        return "cudf.pandas"
    if _rmm_is_managed():
        return "RMM"
    if _cupy_is_managed():
        return "CuPy"
    optimizers = _instances("bitsandbytes")
    if any(getattr(optimizer, "is_paged", False) for optimizer in optimizers):
        return "bitsandbytes"
    return ""


def _rmm_is_managed() -> bool:
    rmm = sys.modules.get("rmm")
    if rmm is None:
        return False
    current = _try(lambda: rmm.mr.get_current_device_resource())
    return any("Managed" in name for name in _resource_names(current))


def _resource_names(resource: Any) -> list[str]:
    """The names of a memory resource and of those it stands on."""
    names: list[str] = []
    while resource is not None and len(names) < MAX_RESOURCES:
        names.append(type(resource).__name__)
        resource = _try(getattr(resource, "get_upstream", None))
    return names


def _cupy_is_managed() -> bool:
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return False
    allocator = _try(lambda: cupy.cuda.get_allocator())
    return "managed" in repr(allocator).lower()


def has_communicator() -> bool:
    """Whether this process has an NCCL communicator, through torch or CuPy."""
    if _torch_has_communicator():
        return True
    objects = _instances("cupy")
    return any(type(object_).__name__ == "NcclCommunicator" for object_ in objects)


def _torch_has_communicator() -> bool:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available():
        return False
    if not distributed.is_initialized():
        return False
    # A torch that does not tell its backend may well have NCCL.
    backend = str(_try(lambda: distributed.get_backend()) or "nccl")
    return "nccl" in backend or "cuda" in backend


def shares_memory() -> bool:
    """Whether ``torch.multiprocessing`` has sent live device memory to another process,
    or has received some.

    Its cache is by handle: that of host memory is a pair of numbers or a short name,
    that of CUDA (with an offset where it was received) at least the 64 bytes of
    ``CUipcMemHandle``.
    """
    reductions = sys.modules.get("torch.multiprocessing.reductions")
    cache = dict(getattr(reductions, "shared_cache", None) or {})
    return any(
        _is_of_device(handle) and not reference.expired()
        for handle, reference in cache.items()
    )


def _is_of_device(handle: Any) -> bool:
    raw = handle[0] if isinstance(handle, tuple) else handle
    return isinstance(raw, bytes) and len(raw) >= IPC_HANDLE_BYTES


def graphs() -> int:
    """Live CUDA graphs of torch."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    graph = getattr(cuda, "CUDAGraph", None)
    if graph is None:
        return 0
    return sum(issubclass(type(object_), graph) for object_ in gc.get_objects())


def pool_bytes() -> int | None:
    """Device memory in the pools of torch and CuPy; None where another library may hold
    some as well.
    """
    if not OTHER_ALLOCATORS.isdisjoint(sys.modules):
        return None
    pools = [_torch_pool_bytes(), _cupy_pool_bytes()]
    return sum(pools) if any(pools) else None


def _torch_pool_bytes() -> int:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return 0
    return sum(cuda.memory_reserved(index) for index in range(cuda.device_count()))


def _cupy_pool_bytes() -> int:
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "get_default_memory_pool"):
        return 0
    return int(cupy.get_default_memory_pool().total_bytes())


def profiler() -> str:
    """The profiler that runs in this process; empty for none."""
    torch_profiler = sys.modules.get("torch.autograd.profiler")
    if getattr(torch_profiler, "_is_profiler_enabled", False):
        return "torch.profiler"
    state = getattr(sys.modules.get("jax._src.profiler"), "_profile_state", None)
    if getattr(state, "profile_session", None) is not None:
        return "jax.profiler"
    return ""


def _registered_bytes(kinds: Collection[str]) -> int:
    registry = sys.modules.get(OFFLOAD_REGISTRY)
    return 0 if registry is None else int(registry.registered_bytes(kinds))


def _instances(library: str) -> Iterable[Any]:
    """Live objects whose class is of a library; none where it is not loaded."""
    if library not in sys.modules:
        return []
    return [object_ for object_ in gc.get_objects() if _library_of(object_) == library]


def _library_of(object_: Any) -> str:
    return str(type(object_).__module__).partition(".")[0]


def _try(ask: Callable[[], Any] | None) -> Any:
    """The answer, or None: a library of another version must not end the report."""
    if ask is None:
        return None
    try:
        return ask()
    except Exception:
        return None
