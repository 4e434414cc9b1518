"""The CUDA driver by hand: raw codes, so that nothing of a framework stands between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Any

from jupyter_aistack.core.model.units import MIB
from tests.benchmarks.gpu.probes.reporting import timed

STATES = ("running", "locked", "checkpointed", "failed")
MULTIPROCESSORS = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT"""
LOCK_ARGUMENTS = 8
"""Words of CUcheckpointLockArgs; the first is the time limit in milliseconds."""

restored: set[int] = set()
"""Processes to take out again before they are killed: one that is killed after a
restore may hang the host (NVIDIA/cuda-checkpoint#53).
"""


class Cuda:
    """The driver's library in this process.

    Raises:
        OSError: there is none.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: Any) -> int:
        """The code of one call; a call that this driver does not have is 500, "not
        found".
        """
        try:
            function = getattr(self._library, name)
        except AttributeError:
            return 500
        return int(function(*arguments))

    def word(self, code: int) -> str:
        """A code with its name; empty for success."""
        if code == 0:
            return ""
        text = ctypes.c_char_p()
        self.call("cuGetErrorName", code, ctypes.byref(text))
        return f"{code} {(text.value or b'?').decode()}"

    def initialise(self) -> dict[str, Any]:
        """``cuInit`` alone."""
        code, seconds = timed(lambda: self.call("cuInit", 0))
        return {"init_s": seconds, "error": self.word(code)}

    def context(self) -> dict[str, Any]:
        """Seconds of ``cuInit`` and of a context on the first device, and what failed."""
        started = self.initialise()
        if started["error"]:
            return started
        error, seconds = timed(self._retain)
        return {**started, "context_s": seconds, "error": error}

    def _retain(self) -> str:
        device, context = ctypes.c_int(), ctypes.c_void_p()
        code = self.call("cuDeviceGet", ctypes.byref(device), 0)
        code = code or self.call(
            "cuDevicePrimaryCtxRetain", ctypes.byref(context), device
        )
        return self.word(code or self.call("cuCtxSetCurrent", context))

    def memory(self) -> dict[str, int]:
        """Memory and multiprocessors as a process sees them."""
        free, total, count = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_int()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        self.call("cuDeviceGetAttribute", ctypes.byref(count), MULTIPROCESSORS, 0)
        return {
            "free_mib": free.value // MIB,
            "total_mib": total.value // MIB,
            "multiprocessors": count.value,
        }

    def fill(self, chunk_mib: int, most_mib: int) -> dict[str, Any]:
        """What can be allocated, and with what it ends; all is given back."""
        taken: list[ctypes.c_uint64] = []
        code = 0
        while len(taken) * chunk_mib < most_mib:
            pointer, size = ctypes.c_uint64(), ctypes.c_size_t(chunk_mib * MIB)
            code = self.call("cuMemAlloc_v2", ctypes.byref(pointer), size)
            if code:
                break
            taken.append(pointer)
        for pointer in taken:
            self.call("cuMemFree_v2", pointer)
        ended_with = self.word(code) or "what was asked for"
        return {"allocatable_mib": len(taken) * chunk_mib, "ended_with": ended_with}

    # -- checkpoints -------------------------------------------------------------------

    def state(self, pid: int) -> str:
        """How the driver calls the state of a process, or why it does not."""
        state = ctypes.c_int(-1)
        code = self.call("cuCheckpointProcessGetState", pid, ctypes.byref(state))
        if code:
            return self.word(code)
        is_known = 0 <= state.value < len(STATES)
        return STATES[state.value] if is_known else str(state.value)

    def step(self, name: str, pid: int, timeout_ms: int = 0) -> dict[str, Any]:
        """One step of a checkpoint: Lock, Checkpoint, Restore or Unlock."""
        words = (ctypes.c_uint64 * LOCK_ARGUMENTS)(timeout_ms) if timeout_ms else None
        code, seconds = timed(
            lambda: self.call(f"cuCheckpointProcess{name}", pid, words)
        )
        if code == 0 and name == "Restore":
            restored.add(pid)
        if code == 0 and name == "Checkpoint":
            restored.discard(pid)
        return {"step": name, "error": self.word(code), "s": seconds}

    def steps(self, pid: int, *names: str) -> list[dict[str, Any]]:
        """Several steps, one after the other."""
        return [self.step(name, pid, 5000 * (name == "Lock")) for name in names]


def retire_all() -> None:
    """Take out what was restored and still lives, then end it; the last thing that a
    probe does, however it ends.
    """
    for pid in tuple(restored):
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            Cuda().steps(pid, "Lock", "Checkpoint")
            os.kill(pid, signal.SIGKILL)
