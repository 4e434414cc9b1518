"""Can this host suspend? Tried on a process of our own before any kernel's state is
touched, for each driver and GPU.

A child puts a pattern on the GPU; it is suspended, looked for with NVML, resumed, and
the pattern compared; then it is suspended again and killed. Whatever fails switches the
driver's checkpoint off on this host, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import shown_environment
from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint import selftest_child
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY
from jupyter_aistack.system.files import write_atomic

from .driver_checkpoint import DriverCheckpoint

VICTIM = Path(selftest_child.__file__)
VICTIM_SECONDS = 60.0
"""For the child to start CUDA, and to read its pattern back."""
GONE_SECONDS = 2.0
KEEP_SECONDS = 7 * 86400.0
"""How long a success is believed; a failure is tried again with the next start of a
server.
"""

Held = Callable[[int], int | None]
"""Bytes that a process holds on the GPU; 0 when the driver does not list it, None where
it does not say how many.
"""


class SelfTestFailed(Exception):
    """The argument says at what."""


def run(
    uuid: str,
    helper: CheckpointClient,
    held: Held,
    command: Sequence[str] | None = None,
) -> str:
    """Why the GPU `uuid` cannot be trusted to give states back; empty when it can.

    Args:
        helper: who speaks to the driver.
        held: asks NVML.
        command: the child; by default a Python that needs nothing but the driver's
            library.
    """
    problem = helper.probe()
    if problem:
        return problem
    environment = {**os.environ, **shown_environment(VISIBILITY, uuid)}
    with subprocess.Popen(
        command or (sys.executable, "-I", "-S", str(VICTIM)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        try:
            _try(child, DriverCheckpoint(helper), held)
        except (SelfTestFailed, CheckpointFailed) as failed:
            return f"the self-test failed: {failed.args[0]}"
        finally:
            child.kill()
    return ""


def _try(
    child: subprocess.Popen[str], checkpoints: DriverCheckpoint, held: Held
) -> None:
    _check(_read_answer(child), "its process could not use the GPU")
    if not held(child.pid):
        raise SelfTestFailed(
            "the driver does not say what its process holds: it may run in another process namespace"
        )
    _suspend(child, checkpoints, held)
    checkpoints.resume([child.pid])
    assert child.stdin is not None
    child.stdin.write("compare\n")
    child.stdin.flush()
    compared = _read_answer(child)
    # Whatever the answer: killing a process that was restored has hung hosts.
    _suspend(child, checkpoints, held)
    _check(compared, "what came back is not what was suspended")


def _suspend(
    child: subprocess.Popen[str], checkpoints: DriverCheckpoint, held: Held
) -> None:
    checkpoints.suspend([child.pid])
    deadline = time.monotonic() + GONE_SECONDS
    while held(child.pid) != 0:
        if time.monotonic() >= deadline:
            raise SelfTestFailed("memory stayed on the GPU after it was suspended")
        time.sleep(0.05)


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
    """The results of self-tests, by driver, GPU and user, in a file beside the ledger.

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
        known = {
            key: at for key, at in self._read().items() if key != _key(driver, uuid)
        }
        if has_passed:
            known[_key(driver, uuid)] = self._clock()
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
