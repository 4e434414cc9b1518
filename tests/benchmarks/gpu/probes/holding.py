"""Data on the GPU by what made it, and a look whether it is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jupyter_aistack.core.model.units import GIB
from tests.benchmarks.gpu.work import pattern_sum

Look = Callable[[], bool]
PART = GIB // 4
"""Numbers of one tensor: what is needed to look must be little."""


def by_torch(size: int) -> Look:
    """Tensors of numbers."""
    import torch

    total = size // 4
    counts = [min(PART, total - first) for first in range(0, total, PART)]
    data = [
        torch.arange(count, dtype=torch.int32, device="cuda") % 251 for count in counts
    ]
    torch.cuda.empty_cache()

    def is_right() -> bool:
        sums = [int(each.sum(dtype=torch.int64)) for each in data]
        return sums == list(map(pattern_sum, counts))

    return is_right


def by_graph(size: int) -> Look:
    """A captured graph."""
    import torch

    data = torch.ones(size // 8, device="cuda")
    cuda: Any = torch.cuda
    with cuda.stream(cuda.Stream()):
        doubled = data * 2
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = data * 2

    def is_right() -> bool:
        doubled.zero_()
        graph.replay()
        torch.cuda.synchronize()
        return float(doubled[-1]) == 2.0

    return is_right


def once_profiled(size: int) -> Look:
    """A process that torch's profiler has looked at."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    data = torch.ones(size // 4, device="cuda")
    with profile(activities=[ProfilerActivity.CUDA]):
        data += 1
        torch.cuda.synchronize()
    return lambda: float(data[-1]) == 2.0


def with_loader(size: int) -> Look:
    """A process with workers that load data."""
    import torch
    from torch.utils.data import DataLoader

    data = torch.ones(size // 4, device="cuda")
    numbers: Any = list(range(10_000))
    loader = DataLoader(numbers, num_workers=2, batch_size=8, pin_memory=True)
    batches = iter(loader)
    next(batches)
    return lambda: float(data[-1]) == 1.0 and len(next(batches)) == 8


def by_cupy(size: int) -> Look:
    """An array of CuPy."""
    import cupy

    data = cupy.arange(size // 4, dtype=cupy.int32)
    expected = int(data.sum(dtype=cupy.int64))
    return lambda: int(data.sum(dtype=cupy.int64)) == expected


def by_jax(size: int) -> Look:
    """An array of JAX, and a compiled function."""
    import jax
    import jax.numpy as jnp

    data = jnp.ones(size // 4, dtype=jnp.float32)
    double = jax.jit(lambda values: (values * 2)[-1])
    float(double(data))
    return lambda: float(double(data)) == 2.0


HOLDERS: dict[str, Callable[[int], Look]] = {
    "torch": by_torch,
    "graph": by_graph,
    "profiled": once_profiled,
    "loader": with_loader,
    "cupy": by_cupy,
    "jax": by_jax,
}
