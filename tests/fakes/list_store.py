"""A store of runs in lists, which fails, refuses and waits as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from jupyter_aistack.tracking.store import (
    Batch,
    MetricPoint,
    RejectedByStore,
    RunRejected,
    Store,
)


class ListStore(Store):
    """Keeps everything in lists.

    Args:
        failures: how many writes fail before the first goes well.
        refuses: which points are refused for good, with the whole write they are in.

    Attributes:
        gate: no write goes through before it is open.
        batches: what was written.
        ends: the ends of the run, as status and moment.
        is_deleted: the run takes nothing more.
    """

    def __init__(
        self,
        failures: int = 0,
        refuses: Callable[[MetricPoint], bool] = lambda point: False,
    ) -> None:
        self.run_id, self.uri = "run-1", "list:"
        self.batches: list[Batch] = []
        self.ends: list[tuple[str, float]] = []
        self.threads: set[str] = set()
        self.failures = failures
        self.refuses = refuses
        self.is_deleted = False
        self.writes = 0
        self.gate = threading.Event()
        self.gate.set()

    def write(self, batch: Batch) -> None:
        self.threads.add(threading.current_thread().name)
        self.gate.wait(30)
        self.writes += 1
        if self.is_deleted:
            raise RunRejected("the run is deleted")
        if any(self.refuses(point) for point in batch.points):
            raise RejectedByStore("bad name")
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no answer\nlong story")
        self.batches.append(batch)

    def add_file(self, path: str) -> None: ...

    def add_data(self, data: Any) -> None: ...

    def finish(self, status: str, ended_at: float) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no answer\nlong story")
        self.ends.append((status, ended_at))

    @property
    def points(self) -> list[MetricPoint]:
        """All points written, in their order."""
        return [point for batch in self.batches for point in batch.points]


def point(step: int = 0, name: str = "loss") -> MetricPoint:
    """A point of a metric."""
    return MetricPoint(name=name, value=float(step), timestamp_ms=step, step=step)
