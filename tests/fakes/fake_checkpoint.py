"""The checkpoint helper over processes that are only told of: ``python
fake_checkpoint.py STATES SCRIPT [FIRST]``.

It is the real helper but for the driver. STATES is a file that holds each process's
state, as a driver outlives a
helper. SCRIPT is JSON: ``{"lock": ["timeout"], "restore": ["oom"], "checkpoint":
["crash", "slow"]}``, a fault for each
of the first calls of a step, whichever helper they reach: what is left of it is kept
beside STATES. FIRST is the state of a process that is not in STATES; without it there
is no such process. Where FAKE_NVML_STATE names the state of a fake NVML, what a process
holds leaves the GPU there and comes back, as far as there is room.
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
ERRORS = {
    "timeout": "CUDA_ERROR_NOT_READY",
    "unsupported": "CUDA_ERROR_NOT_SUPPORTED",
    "denied": "CUDA_ERROR_NOT_PERMITTED",
    "unlucky": "CUDA_ERROR_UNKNOWN",
}
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
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: no such process")
        return str(known[self.pid])

    def _become(self, state: str) -> None:
        self.states.write_text(
            json.dumps({**json.loads(self.states.read_text()), self.pid: state})
        )
        if state == "checkpointed":
            change_nvml(
                f"process gpu=0 pid={self.pid} ", f"#away process gpu=0 pid={self.pid} "
            )
        elif state == "locked":
            change_nvml(
                f"#away process gpu=0 pid={self.pid} ", f"process gpu=0 pid={self.pid} "
            )

    def _step(self, step: str) -> None:
        if self.state != BEFORE[step]:
            raise RuntimeError(
                f"CUDA_ERROR_ILLEGAL_STATE: {step} of a process that is {self.state}"
            )
        fault = take_fault(self.states, step)
        if fault == "crash":
            os._exit(139)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "oom":
            self._become("failed")
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        if fault in ERRORS:
            raise RuntimeError(ERRORS[fault])
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


def change_nvml(before: str, after: str) -> None:
    """The first GPU of the fake NVML once lines that begin so begin otherwise; what is
    free is said anew.
    """
    if file := os.environ.get("FAKE_NVML_STATE"):
        lines = Path(file).read_text().replace("\n" + before, "\n" + after)
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
