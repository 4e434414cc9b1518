"""The probe of the driver's checkpoint, and what its ways out and back have in common."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.benchmarks.gpu.probes.children import Child, child, holder
from tests.benchmarks.gpu.probes.cuda import Cuda
from tests.benchmarks.gpu.probes.nvml import Nvml
from tests.benchmarks.gpu.probes.reporting import (
    Finding,
    Findings,
    Limits,
    resident_gib,
    timed,
)
from tests.benchmarks.gpu.units import GB, GIB, MIB

NOBODY = 65534
WAYS = ("Lock", "Checkpoint", "Restore", "Unlock")
OF_ANOTHER = """
import ctypes, sys
library, pid = ctypes.CDLL("libcuda.so.1"), int(sys.argv[1])
steps = ("Lock", "Checkpoint", "Restore", "Unlock")
print(library.cuInit(0), [getattr(library, "cuCheckpointProcess" + s)(pid, None) for s in steps])
"""


def away(
    cuda: Cuda, nvml: Nvml, pid: int, *, probe: str, name: str
) -> tuple[Finding, bool]:
    """One way out and back of a process, what NVML says in between, and whether every
    step was done.
    """
    before = nvml.used_mib()
    steps = cuda.steps(pid, "Lock", "Checkpoint")
    listed, between = nvml.listed(pid), nvml.used_mib()
    resident, state = resident_gib(pid), cuda.state(pid)
    steps += cuda.steps(pid, "Restore", "Unlock")
    values = {
        "seconds": {each["step"]: each["s"] for each in steps},
        "errors": [each["error"] for each in steps if each["error"]],
        "state_when_out": state,
        "used_mib": [before, between, nvml.used_mib()],
        "listed_when_out": listed,
        "resident_gib": [resident, resident_gib(pid)],
        "state": cuda.state(pid),
    }
    return Finding(probe=probe, name=name, values=values), not values["errors"]


def finding(name: str, **values: object) -> Finding:
    return Finding(probe="checkpoint", name=name, values=values)


def checkpoint(limits: Limits) -> Findings:
    """The driver's checkpoint: states, NVML meanwhile, who may, at work, killed."""
    nvml, cuda = Nvml(), Cuda()
    started = cuda.initialise()
    yield finding("start", **started, own_state=cuda.state(os.getpid()))
    yield from without_context(cuda)
    yield from bare_context(cuda, nvml)
    with holder(cuda, "holding", "torch", 2 * GB) as process:
        yield finding("holding", **process.hear(90))
        yield away(cuda, nvml, process.pid, probe="checkpoint", name="torch_2_gb")[0]
        yield finding("data", **process.ask("check"))
    yield from at_work(cuda)
    if os.getuid() == 0:
        yield from of_another_user(cuda)


def without_context(cuda: Cuda) -> Findings:
    """A process without CUDA, and one with ``cuInit`` alone."""
    sleeper = subprocess.Popen(["sleep", "60"])
    state = cuda.state(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    with child("initialised") as process:
        process.hear(30)
        yield finding(
            "without_context",
            state_without_cuda=state,
            state=cuda.state(process.pid),
            lock=cuda.step("Lock", process.pid, 1000),
            unlock=cuda.step("Unlock", process.pid),
        )


def bare_context(cuda: Cuda, nvml: Nvml) -> Findings:
    """A context and nothing else: out and back, out again, and killed while out."""
    process = Child("context", environment={"CUDA_MPS_PIPE_DIRECTORY": "/dev/null"})
    try:
        process.hear(30)
        yield away(cuda, nvml, process.pid, probe="checkpoint", name="bare_context")[0]
        yield finding("alive", **process.ask("info", 10))
        steps = cuda.steps(process.pid, "Lock", "Checkpoint")
        yield finding("second_out", steps=steps)
    finally:
        _, seconds = timed(lambda: process.end(kill=True))
    yield finding("killed_while_out", s=seconds, used_mib=nvml.used_mib())


def at_work(cuda: Cuda) -> Findings:
    """The lock of a process that never pauses."""
    with child("burning") as process:
        process.hear()
        lock, state = cuda.step("Lock", process.pid, 2000), cuda.state(process.pid)
        cuda.step("Unlock", process.pid)
        time.sleep(0.3)
        yield finding("at_work", lock=lock, state=state, **process.ask("count", 10))


def of_another_user(cuda: Cuda) -> Findings:
    """Whether a user who is not root may do it to his own process."""

    def be_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    with holder(cuda, "context", before=be_nobody) as process:
        answer = process.hear(30)
        if answer.get("error"):
            yield finding("not_root", words="cannot use the GPU here", **answer)
            return
        done = subprocess.run(
            [sys.executable, "-c", OF_ANOTHER, str(process.pid)],
            preexec_fn=be_nobody,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        yield finding("not_root", words=done.stdout.strip() or done.stderr[-200:])


def oom(limits: Limits) -> Findings:
    """A restore that finds no room, then one that does (NVIDIA/cuda-checkpoint#44)."""

    def step_finding(name: str, **values: object) -> Finding:
        return Finding(probe="oom", name=name, values=values)

    nvml, cuda = Nvml(), Cuda()
    cuda.initialise()
    with holder(cuda, "holding", "torch", 8 * GB) as process:
        process.hear()
        yield step_finding("out", steps=cuda.steps(process.pid, "Lock", "Checkpoint"))
        free = int(nvml.library.nvmlDeviceGetMemoryInfo(nvml.handle).free)
        with child("holding", "torch", free - 3 * GIB) as filler:
            left = nvml.library.nvmlDeviceGetMemoryInfo
            answer = filler.hear()
            yield step_finding(
                "filled", **answer, free_mib=left(nvml.handle).free // MIB
            )
            step = cuda.step("Restore", process.pid)
            yield step_finding("without_room", **step, state=cuda.state(process.pid))
        time.sleep(1.0)
        steps = cuda.steps(process.pid, "Restore", "Unlock")
        state = cuda.state(process.pid)
        yield step_finding(
            "with_room", steps=steps, state=state, **process.ask("check", 20)
        )
    yield step_finding("after", used_mib=nvml.used_mib())
