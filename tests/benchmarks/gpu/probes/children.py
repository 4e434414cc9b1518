"""Processes of a probe: told what to do by lines, heard as JSON, ended by their pid."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.gpu.probes.cuda import Cuda

CHILD = "tests.benchmarks.gpu.probes.child"
START_SECONDS, END_SECONDS = 60.0, 5.0


class Child:
    """One process of :mod:`tests.benchmarks.gpu.probes.child`.

    Args:
        mode: what it is.
        words: of that mode.
        before: run in it before Python starts.
        environment: what it gets beside ours.
    """

    def __init__(
        self,
        mode: str,
        *words: str | int,
        before: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_MPS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", CHILD, mode, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**ours, **(environment or {})},
            preexec_fn=before,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._noise: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def hear(self, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Its next answer; ``error`` where it has none."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                return {"error": f"silent for {seconds:g} s"}
            if not line:
                self._lines.put("")  # for who asks again
                last = " | ".join(self._noise[-3:])[:300]
                return {"error": f"ended with {self.process.wait()}: {last}"}
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
            self._noise.append(line.strip())

    def ask(self, word: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Tell it and hear."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self.hear(seconds)

    def end(self, *, kill: bool = False) -> None:
        """Let it end by itself, or end it at once."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
                return
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)


@contextmanager
def child(mode: str, *words: str | int, **environment: str) -> Iterator[Child]:
    """A process that is gone at the end."""
    made = Child(mode, *words, environment=environment)
    try:
        yield made
    finally:
        made.end(kill=True)


@contextmanager
def holder(
    cuda: Cuda,
    mode: str,
    *words: str | int,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """A process that may be checkpointed: what it has on the GPU is taken away before
    it is killed (NVIDIA/cuda-checkpoint#53).
    """
    made = Child(mode, *words, before=before, environment=environment)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            cuda.steps(made.pid, "Lock", "Checkpoint")
        made.end(kill=True)
