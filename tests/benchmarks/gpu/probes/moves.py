"""Probes of what moves: seconds by size, and two cycles of what notebooks have."""

from __future__ import annotations

from tests.benchmarks.gpu.probes.checkpoint import away
from tests.benchmarks.gpu.probes.children import holder
from tests.benchmarks.gpu.probes.cuda import Cuda
from tests.benchmarks.gpu.probes.nvml import Nvml
from tests.benchmarks.gpu.probes.reporting import (
    Finding,
    Findings,
    Limits,
    host_memory_gib,
    shell,
)
from tests.benchmarks.gpu.units import GB, MIB

SIZES_GB = (1, 5, 20, 50)
CYCLES, SIZE = 2, 256 * MIB
FRAMEWORKS: dict[str, tuple[str, dict[str, str]]] = {
    "cupy": ("cupy", {}),
    "jax": ("jax", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    "graph": ("graph", {}),
    "loader": ("loader", {}),
    "profiled": ("profiled", {}),
    "expandable": ("torch", {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
}


def speed(limits: Limits) -> Findings:
    """Seconds by size, and whether the host's copy is given back."""
    nvml, cuda = Nvml(), Cuda()
    cuda.initialise()
    yield Finding(probe="speed", name="host", values=host_memory_gib())
    for size_gb in SIZES_GB:
        name = f"{size_gb}_gb"
        if not limits.affords(12 + 0.9 * size_gb):
            yield Finding(probe="speed", name=name, values={"left_out": "no time"})
            continue
        yield from of_size(cuda, nvml, name, size_gb)


def of_size(cuda: Cuda, nvml: Nvml, name: str, size_gb: int) -> Findings:
    """One way out and back of so much."""
    with holder(cuda, "holding", "torch", size_gb * GB) as process:
        answer = process.hear(90)
        if "error" in answer:
            yield Finding(probe="speed", name=name, values=answer)
            return
        yield away(cuda, nvml, process.pid, probe="speed", name=name)[0]
        values = {**process.ask("check"), **host_memory_gib()}
        yield Finding(probe="speed", name=f"{name}_data", values=values)


def frameworks(limits: Limits) -> Findings:
    """Two cycles each of what notebooks have."""
    nvml, cuda = Nvml(), Cuda()
    cuda.initialise()
    for name, (what, environment) in FRAMEWORKS.items():
        if not limits.affords(20):
            yield Finding(probe="frameworks", name=name, values={"left_out": "no time"})
            continue
        yield from of_framework(cuda, nvml, name, what, environment)


def of_framework(
    cuda: Cuda, nvml: Nvml, name: str, what: str, environment: dict[str, str]
) -> Findings:
    """Cycles until a step fails."""
    with holder(cuda, "holding", what, SIZE, environment=environment) as process:
        answer = process.hear(90)
        if "error" in answer:
            yield Finding(probe="frameworks", name=name, values=answer)
            return
        children = shell(f"pgrep -P {process.pid}").split()
        for _ in range(CYCLES):
            cycle, is_done = away(
                cuda, nvml, process.pid, probe="frameworks", name=name
            )
            yield cycle
            if not is_done:
                break
        values = {**process.ask("check", 30), "children": children}
        yield Finding(probe="frameworks", name=f"{name}_data", values=values)
