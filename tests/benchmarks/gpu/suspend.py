"""Out to host memory and back: the driver's checkpoint by size, twenty cycles of each
framework, registered objects.

The driver's checkpoint is driven as a server does it, through the one helper. After
each suspend the GPU's memory must be free by as much as was held; after each resume the
data must be as it was. The processes end by themselves: one that was restored is never
killed (NVIDIA/cuda-checkpoint#53).
Public figures to stand beside: 2.4 to 2.7 GB/s out and 3.4 to 4.3 GB/s back on an H100
PCIe (shayonj/gpusched).
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from jupyter_aistack.exceptions import AIStackError, CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint import drivers
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.nvidia.nvml import NVML
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    WorkFailed,
    environment,
    used_bytes,
)
from tests.benchmarks.gpu.units import GB, MIB
from tests.benchmarks.gpu.workers import Worker, worker
from tests.paths import FAKES

SECONDS = 110.0
SIZES_GB = (2, 20, 60)
FRAMEWORKS = ("torch", "cupy", "jax")
CYCLES, CYCLE_BYTES = 20, 512 * MIB
SLOWEST_OUT, SLOWEST_BACK = 2.5 * GB, 3.5 * GB
"""Bytes per second to plan with, before anything is measured (shayonj/gpusched on an
H100 PCIe).
"""
GONE = 0.95
"""Of what it holds must have left the GPU; its context leaves beside it."""
HOST_SHARE = 0.6
"""Of the host's memory that can be had; as the package itself refuses beyond."""


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One way out and back: seconds, and what was wrong."""

    out: float
    back: float
    is_right: bool
    is_gone: bool | None
    """Whether the bytes had left the GPU meanwhile; None where that cannot be asked."""


def rows(bench: Bench) -> Iterator[Row]:
    client = checkpoint_client(bench)
    try:
        why = client.probe() or ("" if bench.device == "cpu" else why_not())
        if why:
            yield Row(name="driver", says=f"not measured: {why}")
        else:
            yield from by_size(bench, client)
            yield from by_framework(bench, client)
    finally:
        client.close()
    yield from registered(bench)


def checkpoint_client(bench: Bench) -> CheckpointClient:
    """The helper; in a dry run the one of the tests, over states in a file."""
    if bench.device == "cuda":
        return CheckpointClient()
    program = FAKES / "fake_checkpoint.py"
    return CheckpointClient(
        (sys.executable, str(program), str(bench.folder / "states.json"), "{}")
    )


def why_not() -> str:
    """What is known against this driver."""
    nvml = NVML()
    try:
        return drivers.why_not(
            str(nvml.query("nvmlSystemGetDriverVersion")), platform.machine()
        )
    finally:
        nvml.close()


def by_framework(bench: Bench, client: CheckpointClient) -> Iterator[Row]:
    """Many cycles of a little data, by each framework that is installed."""
    wanted = bench.pick(CYCLES, 2)
    for framework in FRAMEWORKS:
        try:
            result = cycled(
                bench, client, framework, bench.pick(CYCLE_BYTES, MIB), wanted
            )
        except (WorkFailed, CheckpointFailed) as error:
            yield Row(name=f"driver.{framework}", says=said_of(error))
            continue
        yield from in_short(f"driver.{framework}", result, wanted)


def by_size(bench: Bench, client: CheckpointClient) -> Iterator[Row]:
    """One cycle of each size that the host can take and the time allows."""
    for size_gb in SIZES_GB:
        name, size = f"driver.{size_gb}GB", bench.pick(size_gb * GB, size_gb * MIB)
        refusal = why_no_size(
            bench, size, size / SLOWEST_OUT + size / SLOWEST_BACK + 10
        )
        if refusal:
            yield Row(name=name, says=f"left out: {refusal}")
            continue
        try:
            (result,) = cycled(bench, client, "torch", size, 1)
        except (WorkFailed, CheckpointFailed) as error:
            yield Row(name=name, says=said_of(error))
            continue
        yield from timed(name, size, result.out, result.back)
        yield Row(name=f"{name}.data_right", value=float(result.is_right), least=1.0)


def why_no_size(bench: Bench, size: int, seconds: float) -> str:
    """Why this much is not moved; empty when it is."""
    room = int(HOST_SHARE * bench.host_room)
    if size > room:
        return f"the host has room for {room / GB:.0f} GB"
    return (
        ""
        if bench.affords(seconds)
        else f"it takes about {seconds:.0f} s, and {bench.left:.0f} s are left"
    )


def cycled(
    bench: Bench, client: CheckpointClient, framework: str, size: int, cycles: int
) -> list[Cycle]:
    """Cycles of one process that holds data made by this framework; fewer when the time
    is up.
    """
    given = {**environment(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with worker(bench, given) as child:
        child.ask("hold", framework=framework, size=size)
        if bench.device == "cpu":
            (bench.folder / "states.json").write_text(f'{{"{child.pid}": "running"}}')
        results: list[Cycle] = []
        while len(results) < cycles and (not results or bench.affords(5)):
            results.append(cycle(bench, client, child, size))
    return results


def cycle(bench: Bench, client: CheckpointClient, item: Worker, size: int) -> Cycle:
    """Out, a look at the GPU's memory, and back. Whatever happens in between, it is
    brought back.
    """
    before = used_bytes(bench.device)
    out = sum(client.suspend(item.pid).seconds.values())
    try:
        after = used_bytes(bench.device)
    finally:
        back = sum(client.resume(item.pid).seconds.values())
    is_gone = None if before is None or after is None else before - after >= GONE * size
    return Cycle(
        out=out, back=back, is_right=bool(item.ask("check")["right"]), is_gone=is_gone
    )


def registered(bench: Bench) -> Iterator[Row]:
    """Registered tensors, the second of two cycles: the first also takes and pins the
    host memory.
    """
    for size_gb in SIZES_GB:
        name, size = (
            f"registered.{size_gb}GB",
            bench.pick(size_gb * GB, size_gb * 4 * MIB),
        )
        refusal = why_no_size(bench, size, 15 + size / (2 * GB))
        if refusal:
            yield Row(name=name, says=f"left out: {refusal}")
            continue
        try:
            with worker(bench, environment()) as child:
                text = child.ask("offload", size=size, cycles=2)
        except (WorkFailed, AIStackError) as error:
            yield Row(name=name, says=said_of(error))
            continue
        yield from timed(name, size, text["out"][-1], text["back"][-1])
        yield Row(name=f"{name}.first_out_seconds", value=text["out"][0])
        yield Row(name=f"{name}.data_right", value=float(text["right"]), least=1.0)


def timed(name: str, size: int, out: float, back: float) -> Iterator[Row]:
    """Seconds and GB/s of both ways."""
    for way, seconds in (("out", out), ("back", back)):
        yield Row(name=f"{name}.{way}_seconds", value=seconds)
        yield Row(
            name=f"{name}.{way}_gb_per_second",
            value=size / GB / seconds if seconds > 0 else None,
        )


def in_short(name: str, result: Sequence[Cycle], wanted: int) -> Iterator[Row]:
    """Many cycles as a few figures."""
    says = "" if len(result) == wanted else f"of {wanted}: the time was up"
    yield Row(name=f"{name}.cycles", value=float(len(result)), says=says)
    yield Row(
        name=f"{name}.data_wrong",
        value=float(sum(not each.is_right for each in result)),
        most=0.0,
    )
    looked = [each for each in result if each.is_gone is not None]
    left = float(sum(not each.is_gone for each in looked)) if looked else None
    yield Row(
        name=f"{name}.not_gone",
        value=left,
        says="" if looked else "n/a: the GPU does not tell",
        most=0.0,
    )
    yield Row(name=f"{name}.out_seconds", value=median(each.out for each in result))
    yield Row(name=f"{name}.back_seconds", value=median(each.back for each in result))


def said_of(error: Exception) -> str:
    """What went wrong, in a row's words."""
    text = str(error)
    return (
        "not installed"
        if "ModuleNotFoundError" in text or "ImportError" in text
        else f"failed: {text}"
    )
