"""Can this host suspend? Tried on a process of our own before any kernel's state is
touched, for each driver and GPU.

A child puts a pattern on the GPU; it is suspended, looked for with NVML, resumed, and
the pattern compared; then it is suspended again and killed. Whatever fails switches the
driver's checkpoint off on this host, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import shown_environment
from jupyter_aistack.core.suspend.departure import DeviceUse, has_left
from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint import selftest_child
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY
from jupyter_aistack.system.files import write_atomic

from .driver_checkpoint import DriverCheckpoint

VICTIM = Path(selftest_child.__file__)
VICTIM_SECONDS = 60.0
"""For the child to start CUDA, and to read its pattern back."""
SETTLE_SECONDS = 2.0
"""For a list to follow: a process may be on it for a moment before and after."""
SETTLE_POLL_SECONDS = 0.05
KEEP_SECONDS = 7 * 86400.0
"""How long a success is believed; a failure is tried again with the next start of a
server.
"""

Measure = Callable[[int], DeviceUse]
"""What NVML says of a process on the GPU."""


class SelfTestFailed(Exception):
    """The argument says at what."""


def run(
    uuid: str,
    helper: CheckpointClient,
    measure: Measure,
    command: Sequence[str] | None = None,
) -> str:
    """Why the GPU `uuid` cannot be trusted to give states back; empty when it can.

    Args:
        helper: who speaks to the driver.
        measure: asks NVML.
        command: the child; by default a Python that needs nothing but the driver's
            library.
    """
    problem = helper.probe()
    if problem:
        return problem
    with _child(uuid, command) as child:
        try:
            _try(child, DriverCheckpoint(helper), measure)
        except (SelfTestFailed, CheckpointFailed) as failed:
            return f"the self-test failed: {failed.args[0]}"
    return ""


def measure_context(
    uuid: str, measure: Measure, command: Sequence[str] | None = None
) -> int | None:
    """Bytes that a bare context takes on the GPU `uuid`: what NVML says of a process
    that has one, less what it has allocated; None where that is not to be learned.
    """
    with _child(uuid, command) as child:
        if not _read_answer(child).get("ok"):
            return None
        held_bytes = _listed(child.pid, measure).held_bytes
    if held_bytes is None or held_bytes <= selftest_child.SIZE_BYTES:
        return None
    return held_bytes - selftest_child.SIZE_BYTES


@contextlib.contextmanager
def _child(uuid: str, command: Sequence[str] | None) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the pattern on one GPU; killed at the end.

    It is kept away from any MPS server, also one that is none of ours: clients of MPS
    cannot be checkpointed (NVIDIA/cuda-checkpoint#10).
    """
    shown = shown_environment(VISIBILITY, uuid)
    with subprocess.Popen(
        command or (sys.executable, "-I", "-S", str(VICTIM)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **shown, **VISIBILITY.detached},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _try(
    child: subprocess.Popen[str], checkpoints: DriverCheckpoint, measure: Measure
) -> None:
    _check(_read_answer(child), "its process could not use the GPU")
    if not _listed(child.pid, measure).held_bytes:
        raise SelfTestFailed(
            "the driver does not say what its process holds: it may run in another process namespace"
        )
    _suspend(child, checkpoints, measure)
    checkpoints.resume([child.pid])
    assert child.stdin is not None
    child.stdin.write("compare\n")
    child.stdin.flush()
    compared = _read_answer(child)
    # Whatever the answer: killing a process that was restored has hung hosts.
    _suspend(child, checkpoints, measure)
    _check(compared, "what came back is not what was suspended")


def _suspend(
    child: subprocess.Popen[str], checkpoints: DriverCheckpoint, measure: Measure
) -> None:
    before = measure(child.pid)
    checkpoints.suspend([child.pid])
    left = _settled(child.pid, measure, lambda use: has_left(before, use))
    if not has_left(before, left):
        raise SelfTestFailed("memory stayed on the GPU after it was suspended")


def _listed(pid: int, measure: Measure) -> DeviceUse:
    """What NVML says of a process, once it lists it with what it holds."""
    return _settled(pid, measure, lambda use: bool(use.held_bytes))


def _settled(
    pid: int, measure: Measure, is_settled: Callable[[DeviceUse], bool]
) -> DeviceUse:
    """A measurement once it is as expected, or the last one before patience ran out."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        use = measure(pid)
        if is_settled(use) or time.monotonic() >= deadline:
            return use
        time.sleep(SETTLE_POLL_SECONDS)


def _check(answer: Mapping[str, Any], otherwise: str) -> None:
    if not answer.get("ok"):
        raise SelfTestFailed(str(answer.get("message") or otherwise))


def _read_answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The child's next line. A child that hangs in the driver is killed, which ends
    its line.
    """
    assert child.stdout is not None
    guard = threading.Timer(VICTIM_SECONDS, child.kill)
    guard.start()
    try:
        answer = json.loads(child.stdout.readline() or "{}")
    except ValueError:
        answer = {}
    finally:
        guard.cancel()
    return answer if isinstance(answer, dict) else {}


class Results:
    """The results of self-tests, by driver, GPU and user, and what a context takes, by
    driver and model of GPU, in a file beside the ledger.

    Args:
        file: where; unreadable is empty.
        clock: seconds since the epoch.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def passed(self, driver: str, uuid: str) -> bool:
        """Whether the test passed a short while ago."""
        at = self._read().get(_key(driver, uuid))
        return isinstance(at, (int, float)) and 0 <= self._clock() - at < KEEP_SECONDS

    def note(self, driver: str, uuid: str, *, has_passed: bool) -> None:
        """Remember a result; where it cannot be written the test is made again."""
        at = self._clock() if has_passed else None
        self._write(_key(driver, uuid), at)

    def context_bytes(self, driver: str, model: str) -> int | None:
        """What a bare context takes on GPUs of a model; None where it has not been
        measured.
        """
        size = self._read().get(_context_key(driver, model))
        return size if isinstance(size, int) and size > 0 else None

    def note_context(self, driver: str, model: str, size_bytes: int) -> None:
        """Remember what a bare context takes."""
        self._write(_context_key(driver, model), size_bytes)

    def _write(self, key: str, value: float | None) -> None:
        known = {other: kept for other, kept in self._read().items() if other != key}
        if value is not None:
            known[key] = value
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, json.dumps(known))
        except OSError:
            return

    def _read(self) -> Mapping[str, Any]:
        try:
            results = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return results if isinstance(results, dict) else {}


def _key(driver: str, uuid: str) -> str:
    return f"{driver} {uuid} {os.getuid()}"


def _context_key(driver: str, model: str) -> str:
    return f"context {driver} {model}"
