"""The checkpoint helper over processes that are only told of: ``python
fake_checkpoint.py STATES SCRIPT [FIRST]``.

It is the real helper but for the driver. STATES is a file that holds each process's
state, as a driver outlives a
helper. SCRIPT is JSON: ``{"lock": ["timeout"], "restore": ["oom"], "checkpoint":
["crash", "slow"]}``, a fault for each
of the first calls of a step, whichever helper they reach: what is left of it is kept
beside STATES. FIRST is the state of a process that is not in STATES; without it there
is no such process. Where FAKE_NVML_STATE names the state of a fake NVML, what a process
holds leaves the GPU there and comes back, as far as there is room; meanwhile it stays
listed with 0 bytes, as the driver's lists may have it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

from jupyter_aistack.providers.nvidia.checkpoint.helper import Helper, serve

AFTER = {
    "lock": "locked",
    "checkpoint": "checkpointed",
    "restore": "locked",
    "unlock": "running",
}
BEFORE = {
    "lock": "running",
    "checkpoint": "locked",
    "restore": "checkpointed",
    "unlock": "locked",
}
NO_API = (
    "CUDA checkpointing is not supported by the installed NVIDIA driver. "
    "Upgrade to a driver version with CUDA checkpoint API support."
)
"""What cuda-core makes of CUDA_ERROR_NOT_SUPPORTED and CUDA_ERROR_NOT_FOUND alike
(`cuda.core.checkpoint`, `_call_driver`, 1.2.2).
"""


class CUDAError(Exception):
    """As cuda-core raises it for all other errors: CUDA's name, and what it means."""


ERRORS = {
    "timeout": CUDAError("CUDA_ERROR_NOT_READY: work has not ended yet"),
    "unsupported": RuntimeError(NO_API),
    "denied": CUDAError("CUDA_ERROR_NOT_PERMITTED: not permitted"),
    "unlucky": CUDAError("CUDA_ERROR_UNKNOWN: an unknown error"),
    "no_context": CUDAError("CUDA_ERROR_NOT_INITIALIZED: initialization error"),
}
NO_CONTEXT = "no context"
"""The state, in STATES, of a process that has the driver's library and no context: it
cannot be asked for its state, nor locked.
"""
SLOW_SECONDS = 0.2


class FakeProcess:
    """A process whose GPU state moves by name only."""

    def __init__(self, pid: int, states: Path, first: str = "") -> None:
        self.pid, self.states, self.first = str(pid), states, first

    @property
    def state(self) -> str:
        known = json.loads(self.states.read_text())
        if self.pid not in known and self.first:
            return self.first
        if self.pid not in known:
            raise CUDAError("CUDA_ERROR_INVALID_VALUE: no such process")
        if known[self.pid] == NO_CONTEXT:
            raise ERRORS["no_context"]
        return str(known[self.pid])

    def _become(self, state: str) -> None:
        self.states.write_text(
            json.dumps({**json.loads(self.states.read_text()), self.pid: state})
        )
        if state == "checkpointed":
            change_nvml(self.pid, r"memory=(\d+)", r"memory=0 was=\2")
        elif state == "locked":
            change_nvml(self.pid, r"memory=0 was=(\d+)", r"memory=\2")

    def _step(self, step: str) -> None:
        if self.state != BEFORE[step]:
            raise CUDAError(
                f"CUDA_ERROR_ILLEGAL_STATE: {step} of a process that is {self.state}"
            )
        fault = take_fault(self.states, step)
        if fault == "crash":
            os._exit(139)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "oom":
            self._become("failed")
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        if fault in ERRORS:
            raise ERRORS[fault]
        if fault == "crash_after":
            self._become(AFTER[step])
            os._exit(139)
        self._become(AFTER[step])

    def lock(self, timeout_ms: int) -> None:
        self._step("lock")

    def checkpoint(self) -> None:
        self._step("checkpoint")

    def restore(self) -> None:
        self._step("restore")

    def unlock(self) -> None:
        self._step("unlock")


def change_nvml(pid: str, figure: str, changed: str) -> None:
    """Change what a process holds on the first GPU of the fake NVML, and what is free
    there: `figure` has the group 2. A process that is away stays listed, with nothing.
    """
    if file := os.environ.get("FAKE_NVML_STATE"):
        own = re.compile(rf"^(process gpu=0 pid={pid} ){figure}", re.MULTILINE)
        lines = own.sub(rf"\g<1>{changed}", Path(file).read_text())
        held = sum(
            int(size)
            for size in re.findall(
                r"^process gpu=0 .*memory=(\d+)", lines, re.MULTILINE
            )
        )
        fresh = Path(file).with_suffix(".helper")
        fresh.write_text(re.sub(r" used=\d+", f" used={held}", lines))
        fresh.replace(file)


def take_fault(states: Path, step: str) -> str:
    """The fault of this call of a step; it is taken off the script before anything ends
    the helper.
    """
    file = states.with_suffix(".script")
    script = json.loads(file.read_text())
    faults = script.get(step) or [""]
    file.write_text(json.dumps({**script, step: faults[1:]}))
    return str(faults[0])


def main() -> None:
    states, first = Path(sys.argv[1]), sys.argv[3] if len(sys.argv) > 3 else ""
    if not states.with_suffix(".script").exists():
        states.with_suffix(".script").write_text(sys.argv[2])
    serve(
        sys.stdin,
        sys.stdout,
        Helper(lambda pid: FakeProcess(pid, states, first), lambda: None),
    )


if __name__ == "__main__":
    main()
