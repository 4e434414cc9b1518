"""The helper: ``python -m jupyter_aistack.providers.nvidia.checkpoint.helper``, one for
each server, for as long as it lives.

Reads one JSON object per line, answers with an object::

    {"id": 1, "op": "probe"}                                       {"id": 1, "ok": true}
    {"id": 2, "op": "state", "pid": 7}                             {"id": 2, "ok": true, "state": "running"}
    {"id": 3, "op": "suspend", "pid": 7, "lock_seconds": 5}        {"id": 3, "ok": true, "state": "checkpointed",
                                                                    "seconds": {"lock":
                                                                    0.01, "checkpoint":
                                                                    1.3}}
    {"id": 4, "op": "resume", "pid": 7}                            {"id": 4, "ok": true, "state": "running", …}
    {"id": 5, "op": "suspend", "pids": [7, 8], …}                   several move together: all, or none
    anything that fails                                            {"id": 5, "ok": false, "step": "lock", "state":
                                                                    "running",
                                                                    "code": "not_ready",
                                                                    "message": …,
                                                                    "seconds": …}

A process without a context has nothing to move: among several it is passed over.

It is a process of its own since the driver's calls may block, and since starting CUDA
for each call takes seconds. It holds no context. It ends when its input does, never in
the middle of an operation: that would leave the driver and the process at odds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any, Protocol

from .refusals import CheckpointRefusal, refusal_of

JSON = dict[str, Any]
FAILED = "failed"
MIXED = "mixed"
UNKNOWN = "unknown"


class CheckpointTarget(Protocol):
    """A process whose GPU state can be taken away: ``cuda.core.checkpoint.Process``."""

    @property
    def state(self) -> str:
        """running, locked, checkpointed or failed."""

    def lock(self, timeout_ms: int) -> None:
        """Hold back its calls; what it has submitted ends first."""

    def checkpoint(self) -> None:
        """Copy its device memory to its own host memory, and free it."""

    def restore(self) -> None:
        """Copy it back."""

    def unlock(self) -> None:
        """Let its calls go on."""


def cuda_process(pid: int) -> CheckpointTarget:
    """The process as the driver's checkpoint API sees it.

    Raises:
        Exception: whatever says that there is no such API, driver or process.
    """
    try:
        from cuda.core.checkpoint import Process
    except ImportError as error:
        raise RuntimeError(
            "cuda-core 1.0 or newer is not installed: pip install 'jupyter_aistack[gpu]'"
        ) from error
    target: CheckpointTarget = Process(pid)
    return target


def start_cuda() -> None:
    """Enable this process to restore others.

    Raises:
        Exception: there is no driver, or none that checkpoints.
    """
    cuda_process(os.getpid())
    from cuda.bindings import driver

    error = driver.cuInit(0)[0]
    if int(error) != 0:
        raise RuntimeError(f"the GPU driver does not start: {error.name}")
    _ = cuda_process(os.getpid()).state


class Helper:
    """Does one operation after the other, and says how each went."""

    def __init__(
        self,
        open_target: Callable[[int], CheckpointTarget] = cuda_process,
        start: Callable[[], None] = start_cuda,
    ):
        self._open = open_target
        self._start = start
        self._has_started = False

    def answer(self, question: JSON) -> JSON:
        """The answer to one line; never raises."""
        seconds: dict[str, float] = {}
        steps: list[str] = []
        try:
            result = self._do(question, seconds, steps)
        except (
            Exception
        ) as error:  # whatever a driver says, the next question must find us here
            step = steps[-1] if steps else str(question.get("op", ""))
            state = self._state_after(question)
            message = f"{type(error).__name__}: {error}"
            return {
                "id": question.get("id"),
                "ok": False,
                "step": step,
                "state": state,
                "code": refusal_of(error).value,
                "message": message,
            } | {"seconds": seconds}
        return {"id": question.get("id"), "ok": True, **result}

    def _do(self, question: JSON, seconds: dict[str, float], steps: list[str]) -> JSON:
        operation = question.get("op")
        if operation not in ("probe", "state", "suspend", "resume"):
            raise ValueError(
                f"op: {operation!r} is not known; write probe, state, suspend or resume"
            )
        self._start_once()
        if operation == "probe":
            return {}
        targets: Sequence[CheckpointTarget] = self._targets(question)
        timed = _Timed(seconds, steps)
        if operation == "suspend":
            lock_seconds = float(question.get("lock_seconds", 5.0))
            targets = _suspend(targets, lock_seconds, timed)
        elif operation == "resume":
            _resume(targets, timed)
        return {"state": _state_of(targets), "seconds": seconds}

    def _start_once(self) -> None:
        """A replacement for a helper that crashed is asked to restore at once, and no
        client probes it before.
        """
        if not self._has_started:
            self._start()
            self._has_started = True

    def _targets(self, question: JSON) -> list[CheckpointTarget]:
        pids = question["pids"] if "pids" in question else [question["pid"]]
        return [self._open(int(pid)) for pid in pids]

    def _state_after(self, question: JSON) -> str:
        """How a failed operation has left its processes."""
        try:
            return _state_of(self._targets(question))
        except Exception:
            return UNKNOWN


class _Timed:
    """Calls the steps of an operation and notes how long each took."""

    def __init__(self, seconds: dict[str, float], steps: list[str]) -> None:
        self._seconds = seconds
        self._steps = steps

    def __call__(self, step: str, call: Callable[[], None]) -> None:
        self._steps.append(step)
        begin = time.perf_counter()
        try:
            call()
        finally:
            self._seconds[step] = round(
                self._seconds.get(step, 0.0) + time.perf_counter() - begin, 6
            )


def _state_of(targets: Sequence[CheckpointTarget]) -> str:
    """The state they share; failed when one of them is, mixed when they differ
    otherwise.
    """
    states = {target.state for target in _with_context(targets)}
    if len(states) == 1:
        return states.pop()
    return FAILED if FAILED in states else MIXED


def _with_context(targets: Sequence[CheckpointTarget]) -> Sequence[CheckpointTarget]:
    """Those of the processes that have a context; all of them where none has."""
    return [target for target in targets if _has_context(target)] or targets


def _has_context(target: CheckpointTarget) -> bool:
    try:
        _ = target.state
    except Exception as error:
        return refusal_of(error) is not CheckpointRefusal.NOT_INITIALIZED
    return True


def _suspend(
    targets: Sequence[CheckpointTarget], lock_seconds: float, timed: _Timed
) -> Sequence[CheckpointTarget]:
    """From wherever they are to checkpointed; those that have moved. Where a process
    cannot be, all go on; all are locked before any is copied.
    """
    if lock_seconds <= 0:
        raise ValueError(
            "lock_seconds: must be above 0; without an end a busy process would hold up all others"
        )
    try:
        locked = _lock_all(targets, max(1, int(lock_seconds * 1000)), timed)
        for target in locked:
            if target.state == "locked":
                timed("checkpoint", target.checkpoint)
    except Exception:
        _undo(targets)
        raise
    return locked


def _lock_all(
    targets: Sequence[CheckpointTarget], lock_ms: int, timed: _Timed
) -> Sequence[CheckpointTarget]:
    """Lock those that run; returns the targets without those that have no context, as
    long as one has.
    """
    locked: list[CheckpointTarget] = []
    without_context: Exception | None = None
    for target in targets:
        try:
            if target.state == "running":
                timed("lock", partial(target.lock, lock_ms))
        except Exception as error:
            if refusal_of(error) is not CheckpointRefusal.NOT_INITIALIZED:
                raise
            without_context = error
        else:
            locked.append(target)
    if without_context is not None and not locked:
        raise without_context
    return locked


def _undo(targets: Sequence[CheckpointTarget]) -> None:
    """Let all of them go on: a failed process among them stays as it is, and so do
    those that cannot be helped then.
    """
    targets = _with_context(targets)
    for target in targets:
        if target.state == "checkpointed":
            target.restore()
    for target in targets:
        if target.state == "locked":
            target.unlock()


def _resume(targets: Sequence[CheckpointTarget], timed: _Timed) -> None:
    """From wherever they are to running. What fails to be restored stays as it is: it
    cannot be tried again.
    """
    targets = _with_context(targets)
    for target in targets:
        if target.state == "checkpointed":
            timed("restore", target.restore)
    for target in targets:
        if target.state == "locked":
            timed("unlock", target.unlock)


def serve(questions: IO[str], answers: IO[str], helper: Helper) -> None:
    """Answer until there are no more questions."""
    for line in questions:
        try:
            question = json.loads(line)
        except ValueError:
            question = {}
        answers.write(
            json.dumps(helper.answer(question if isinstance(question, dict) else {}))
            + "\n"
        )
        answers.flush()


def main() -> None:
    """Be the helper on standard input and output; Ctrl-C in the terminal is meant for
    others.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    serve(sys.stdin, sys.stdout, Helper())


if __name__ == "__main__":
    main()
