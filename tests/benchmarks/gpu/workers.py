"""Tenants as processes: started with what their lease gives them, told what to do,
ended by their own pid.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.benchmarks.gpu.bench import Bench, WorkFailed

JSON = dict[str, Any]
_numbers = count(1)
START_SECONDS, ANSWER_SECONDS, END_SECONDS = 60.0, 120.0, 10.0


class Worker:
    """One process of :mod:`tests.benchmarks.gpu.work`."""

    def __init__(self, bench: Bench, environment: Mapping[str, str]) -> None:
        words = [bench.device, *(["small"] if bench.small else [])]
        command = [sys.executable, "-m", "tests.benchmarks.gpu.work", *words]
        self._log = bench.folder / f"worker-{next(_numbers)}.log"
        with self._log.open("wb") as log:
            pipes: dict[str, Any] = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": log,
            }
            self.process = subprocess.Popen(
                command, env=dict(environment), text=True, **pipes
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.hear(START_SECONDS)

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def tell(self, do: str, **options: Any) -> None:
        """Tell it what to do, without waiting."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise WorkFailed(self._last_word()) from error

    def hear(self, seconds: float = ANSWER_SECONDS) -> JSON:
        """Its next answer.

        Raises:
            WorkFailed: it said so, has ended, or did not answer in time.
        """
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise WorkFailed(f"it did not answer within {seconds:.0f} s") from None
        if not line:
            raise WorkFailed(self._last_word())
        text: JSON = json.loads(line)
        if "error" in text:
            raise WorkFailed(text["error"])
        return text

    def ask(self, do: str, *, within: float = ANSWER_SECONDS, **options: Any) -> JSON:
        """Tell it and hear."""
        self.tell(do, **options)
        return self.hear(within)

    def _last_word(self) -> str:
        """With what it ended, and the last line it wrote about that."""
        lines = self._log.read_text(errors="replace").splitlines() or [
            "it said nothing"
        ]
        return f"its process ended with {self.process.wait()}: {lines[-1]}"

    def close(self) -> None:
        """Let it end by itself; help where it does not."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        for end in (None, self.process.terminate, self.process.kill):
            if end is not None:
                end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
                return


@contextmanager
def worker(bench: Bench, environment: Mapping[str, str]) -> Iterator[Worker]:
    """A tenant that is gone at the end."""
    made = Worker(bench, environment)
    try:
        yield made
    finally:
        made.close()


def all_at_once(workers: Iterable[Worker], do: str, **options: Any) -> list[JSON]:
    """Every tenant's answer to the same word, told to all before one is heard."""
    told = list(workers)
    for each in told:
        each.tell(do, **options)
    return [each.hear() for each in told]
