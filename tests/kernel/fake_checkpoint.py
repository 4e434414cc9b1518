"""The checkpoint helper over processes that are only told of: ``python fake_checkpoint.py STATES SCRIPT``.

It is the real helper but for the driver. STATES is a file that holds each process's state, as a driver outlives a
helper. SCRIPT is JSON: ``{"lock": ["timeout"], "restore": ["oom"], "checkpoint": ["crash", "slow"]}``, a fault for each
of the first calls of a step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from jupyter_aistack.checkpoint.helper import Helper, serve

AFTER = {"lock": "locked", "checkpoint": "checkpointed", "restore": "locked", "unlock": "running"}
BEFORE = {"lock": "running", "checkpoint": "locked", "restore": "checkpointed", "unlock": "locked"}
SLOW_SECONDS = 0.2


class FakeProcess:
    """A process whose GPU state moves by name only."""

    def __init__(self, pid: int, states: Path, script: dict[str, list[str]]) -> None:
        self.pid, self.states, self.script = str(pid), states, script

    @property
    def state(self) -> str:
        known = json.loads(self.states.read_text())
        if self.pid not in known:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: no such process")
        return str(known[self.pid])

    def _become(self, state: str) -> None:
        self.states.write_text(json.dumps({**json.loads(self.states.read_text()), self.pid: state}))

    def _step(self, step: str) -> None:
        if self.state != BEFORE[step]:
            raise RuntimeError(f"CUDA_ERROR_ILLEGAL_STATE: {step} of a process that is {self.state}")
        fault = self.script[step].pop(0) if self.script.get(step) else ""
        if fault == "crash":
            os._exit(139)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "oom":
            self._become("failed")
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        if fault in ("timeout", "unsupported"):
            raise RuntimeError({"timeout": "CUDA_ERROR_NOT_READY", "unsupported": "CUDA_ERROR_NOT_SUPPORTED"}[fault])
        self._become(AFTER[step])

    def lock(self, timeout_ms: int) -> None:
        self._step("lock")

    def checkpoint(self) -> None:
        self._step("checkpoint")

    def restore(self) -> None:
        self._step("restore")

    def unlock(self) -> None:
        self._step("unlock")


def main() -> None:
    states, script = Path(sys.argv[1]), json.loads(sys.argv[2])
    serve(sys.stdin, sys.stdout, Helper(lambda pid: FakeProcess(pid, states, script), lambda: None))


if __name__ == "__main__":
    main()
