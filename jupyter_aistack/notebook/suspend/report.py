"""What in this process stands in the way of moving its device state, told to whoever
would move it.

Nothing is imported that is not there already, and nothing here starts CUDA.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection
from typing import Any

from jupyter_aistack.client.runtime.attach import cuda_started

JSON = dict[str, Any]
IPC_HANDLE_BYTES = 64
"""``CU_IPC_HANDLE_SIZE`` of cuda.h."""


def trim() -> None:
    """Drop garbage and give back what torch and CuPy keep cached: cached blocks would
    be copied like live ones.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    cupy = sys.modules.get("cupy")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if cupy is not None and hasattr(cupy, "get_default_memory_pool"):
        cupy.get_default_memory_pool().free_all_blocks()


def report(kinds: Collection[str]) -> JSON:
    """What was found.

    Returns:
        ``cuda``: it has started; ``managed``: who uses managed memory, which the driver
            does not checkpoint; ``nccl``:
        a communicator lives; ``ipc``: device memory is shared with another process;
        ``graphs``: live CUDA graphs;
        ``registered_bytes``: what `offloadable` objects for devices of these `kinds`
            hold there.
    """
    return {
        "cuda": cuda_started(),
        "managed": managed(),
        "nccl": has_communicator(),
        "ipc": shares_memory(),
        "graphs": graphs(),
        "registered_bytes": _registered(kinds),
    }


def managed() -> str:
    """The library that has allocated managed memory, or would without a word; empty for
    none.

    cuDF under pandas and RMM's managed pools, CuPy's managed allocator, bitsandbytes'
    paged optimizers.
    """
    if "cudf.pandas" in sys.modules:
        return "cudf.pandas"
    rmm = sys.modules.get("rmm")
    if rmm is not None and "Managed" in _chain(_current_resource(rmm)):
        return "RMM"
    cupy = sys.modules.get("cupy")
    if (
        cupy is not None
        and "managed" in repr(_quietly(lambda: cupy.cuda.get_allocator())).lower()
    ):
        return "CuPy"
    is_paged = any(
        getattr(one, "is_paged", False) for one in _instances("bitsandbytes")
    )
    return "bitsandbytes" if is_paged else ""


def _current_resource(rmm: Any) -> Any:
    return _quietly(lambda: rmm.mr.get_current_device_resource())


def _chain(resource: Any) -> str:
    """The names of a memory resource and of those it stands on."""
    names: list[str] = []
    while resource is not None and len(names) < 16:
        names.append(type(resource).__name__)
        resource = _quietly(getattr(resource, "get_upstream", None))
    return " ".join(names)


def has_communicator() -> bool:
    """Whether NCCL has one in this process, through torch or CuPy."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if (
        distributed is not None
        and distributed.is_available()
        and distributed.is_initialized()
    ):
        backend = str(_quietly(lambda: distributed.get_backend()) or "nccl")
        if "nccl" in backend or "cuda" in backend:
            return True
    return any(type(one).__name__ == "NcclCommunicator" for one in _instances("cupy"))


def shares_memory() -> bool:
    """Whether ``torch.multiprocessing`` has sent live device memory to another process,
    or has some of one.

    Its cache is by handle; one of host memory is a pair of numbers or a short name, one
    of CUDA (with an offset where it was received) at least the 64 bytes of
    ``CUipcMemHandle``.
    """
    cache = getattr(
        sys.modules.get("torch.multiprocessing.reductions"), "shared_cache", None
    )
    return any(
        _is_of_device(handle) and not reference.expired()
        for handle, reference in dict(cache or {}).items()
    )


def _is_of_device(handle: Any) -> bool:
    raw = handle[0] if isinstance(handle, tuple) else handle
    return isinstance(raw, bytes) and len(raw) >= IPC_HANDLE_BYTES


def graphs() -> int:
    """Live CUDA graphs of torch."""
    torch = sys.modules.get("torch")
    graph = getattr(getattr(torch, "cuda", None), "CUDAGraph", None)
    return (
        0
        if graph is None
        else sum(issubclass(type(one), graph) for one in gc.get_objects())
    )


def _registered(kinds: Collection[str]) -> int:
    registry = sys.modules.get("jupyter_aistack.client.offload.registry")
    return 0 if registry is None else int(registry.registered_bytes(kinds))


def _instances(library: str) -> list[Any]:
    if library not in sys.modules:
        return []
    return [
        one
        for one in gc.get_objects()
        if str(type(one).__module__).partition(".")[0] == library
    ]


def _quietly(ask: Any) -> Any:
    """The answer, or None: a library of another version must not end the report."""
    try:
        return ask()
    except Exception:
        return None
