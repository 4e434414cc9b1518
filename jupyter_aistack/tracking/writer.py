"""The background writer: callers append to a queue in memory and go on; one thread
writes batches to the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from jupyter_aistack.exceptions import TrackingError

from .store import (
    MAX_POINTS,
    MAX_TEXTS,
    Batch,
    Job,
    MetricPoint,
    RejectedByStore,
    RunRejected,
    Store,
    first_line,
    without_secrets,
)

log = logging.getLogger("jupyter_aistack")

GATHER_SECONDS = 0.25
"""How long the writer lets entries gather, so that a fast loop becomes few writes."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""How often a caller who waits looks whether the queue moves. No look counts for more
against the store: a process that was stopped, or a laptop that slept, has not waited.
"""

SLOW_SECONDS = 30.0
"""A write that takes longer is taken for an outage, and said."""

Entry = tuple[str, Any]
OnWait = Callable[[int, int], None]


class Writer:
    """Writes to `store` from a thread of its own.

    A store that fails is tried again, waiting longer each time; that it is down is
    said once, and that it is back. An entry the store refuses is lost alone, not the
    batch it is in. Nothing that goes wrong reaches the caller before :meth:`flush`.

    Args:
        store: where to write.
        clock: seconds that only go on.

    Attributes:
        points_stored: how many points are in the store.
        lost: how many entries were refused for good, by kind.
    """

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._entries: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._waiters = 0  # callers who wait for the queue to empty
        self._is_closed = False
        self._is_writing = False
        self._is_down = False
        self._write_began = 0.0
        self._patience_for_job = 0.0
        self._failure = ""
        # Halved while a batch is refused, until what is refused stands alone.
        self._most = MAX_POINTS
        self._done = 0
        self.points_stored = 0
        self.lost: Counter[str] = Counter()
        self._thread = threading.Thread(
            target=self._work, name="aistack-tracking", daemon=True
        )
        self._thread.start()

    def point(self, point: MetricPoint) -> None:
        """Queue a point."""
        self._put(("point", point))

    def param(self, name: str, value: str) -> None:
        """Queue a param."""
        self._put(("param", (name, value)))

    def tag(self, name: str, value: str) -> None:
        """Queue a tag."""
        self._put(("tag", (name, value)))

    def job(self, job: Job) -> None:
        """Queue a call that is made from the writer's thread, in its turn."""
        self._put(("artifact", job))

    def _put(self, entry: Entry) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
            is_slow = self._is_writing and self._seconds_writing() > SLOW_SECONDS
        if is_slow:
            self._tell_down(f"a write has taken {SLOW_SECONDS:g} s and goes on")

    def _seconds_writing(self) -> float:
        return self._clock() - self._write_began - self._patience_for_job

    @property
    def waiting(self) -> int:
        """How many entries are not stored yet."""
        return len(self._entries)

    @property
    def failure(self) -> str:
        """Why something is not stored, as far as is known."""
        return self._failure

    def flush(self, timeout: float, on_wait: OnWait | None = None) -> None:
        """Wait until all is stored; see :meth:`wait`.

        Raises:
            TrackingError: how much is not stored, and why.
        """
        is_done = self.wait(timeout, on_wait)
        missing = self.missing(is_done=is_done)
        if missing:
            raise incomplete(self._store.run_id, missing, self._failure, timeout)

    def wait(self, timeout: float, on_wait: OnWait | None = None) -> bool:
        """Wait until the queue is empty, as long as it moves; whether it is.

        Args:
            timeout: give up when nothing has moved for so many seconds.
            on_wait: called now and then with how many entries are done with, and how
                many there were.
        """
        with self._changed:
            self._waiters += 1
            self._changed.notify_all()
            first = seen = self._done
        idle = 0.0
        try:
            while not self._is_idle():
                if idle >= timeout + self._patience_for_job:
                    return False
                idle += self._look(seen, min(LOOK_SECONDS, timeout))
                if self._done != seen:
                    seen, idle = self._done, 0.0
                if on_wait is not None:
                    on_wait(seen - first, seen - first + len(self._entries))
            return True
        finally:
            with self._changed:
                self._waiters -= 1

    def _is_idle(self) -> bool:
        with self._changed:
            return not self._entries and not self._is_writing

    def _look(self, seen: int, seconds: float) -> float:
        """Wait until more than `seen` entries are done with, at most so many seconds;
        how many count.
        """
        began = self._clock()
        with self._changed:
            self._changed.wait_for(
                lambda: self._done != seen or self._is_idle(), seconds
            )
        return min(self._clock() - began, seconds)

    def missing(self, *, is_done: bool) -> Counter[str]:
        """How many entries are not stored, by kind: those refused, and what is queued
        unless it `is_done` with.
        """
        with self._changed:
            missing = self.lost.copy()
            if not is_done:
                missing.update(kind for kind, _ in self._entries)
        return missing

    def close(self, timeout: float = 5.0) -> None:
        """Stop the thread, waiting `timeout` seconds for it; what is still queued is
        given up. Closing twice is allowed.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # -- the thread --------------------------------------------------------------------

    def _work(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries or self._is_closed)
                self._changed.wait_for(self._is_due, GATHER_SECONDS)
                if self._is_closed:
                    return
                batch = self._peek()
                self._write_began = self._clock()
                self._is_writing = True
            done = self._write(batch)
            with self._changed:
                self._is_writing = False
                self._patience_for_job = 0.0
                for _ in range(done or 0):
                    self._entries.popleft()
                self._done += done or 0
                if done is not None:
                    pause = FIRST_PAUSE_SECONDS
                else:
                    self._changed.wait_for(lambda: self._is_closed, pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                self._changed.notify_all()

    def _is_due(self) -> bool:
        is_wanted = self._waiters > 0 or self._is_closed
        return is_wanted or len(self._entries) >= self._most

    def _peek(self) -> Batch:
        """The entries at the head of the queue that fit one write; they leave the queue
        once stored.
        """
        batch = Batch()
        for kind, value in self._entries:
            if len(batch) >= self._most:
                break
            if kind == "artifact":
                # A job is written by itself.
                if not len(batch):
                    batch.job = value
                break
            if kind == "point":
                batch.points.append(value)
                continue
            name, text = value
            texts = batch.params if kind == "param" else batch.tags
            # A name twice in a batch would leave it one entry shorter than what is
            # taken off the queue.
            if len(texts) >= MAX_TEXTS or name in texts:
                break
            texts[name] = text
        return batch

    def _write(self, batch: Batch) -> int | None:
        """How many entries at the head of the queue are done with, stored or refused
        for good; None when the store failed.
        """
        try:
            self._hand_over(batch)
        except RunRejected as error:
            return self._lose_all(error)
        except RejectedByStore as error:
            return self._narrow(batch, error)
        except Exception as error:
            # Any library may fail in any way below; the loop being tracked must go on.
            self._failure = first_line(error)
            self._tell_down(self._failure)
            return None
        self._most = min(2 * self._most, MAX_POINTS)
        self.points_stored += len(batch.points)
        self._tell_up()
        return len(batch)

    def _hand_over(self, batch: Batch) -> None:
        if batch.job is None:
            self._store.write(batch)
            return
        self._patience_for_job = batch.job.patience_seconds()
        batch.job.call()

    def _narrow(self, batch: Batch, error: RejectedByStore) -> int:
        """Come nearer to the entry that is refused, or leave it out when it is alone."""
        self._tell_up()
        if len(batch) > 1:
            self._most = (len(batch) + 1) // 2
            return 0
        self._failure = error.message
        is_first = not self.lost
        self._lose([self._entries[0]])
        if is_first:
            log.warning(
                "tracking: %s refuses %s, which is left out (%s); the end of the run says how much was",
                without_secrets(self._store.uri),
                _named(batch),
                error.message,
            )
        return 1

    def _lose_all(self, error: RunRejected) -> int:
        self._failure = error.message
        with self._changed:
            entries = list(self._entries)
        is_first = not self.lost
        self._lose(entries)
        self._most = MAX_POINTS
        if is_first:
            log.warning(
                "tracking: %s takes nothing more for run %s (%s); it is left out, and the end of the run says how "
                "much was",
                without_secrets(self._store.uri),
                self._store.run_id,
                error.message,
            )
        return len(entries)

    def _lose(self, entries: Iterable[Entry]) -> None:
        with self._changed:
            self.lost.update(kind for kind, _ in entries)

    def _tell_down(self, why: str) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning(
                "tracking: since %s nothing reaches %s (%s); it is tried again, and what is logged waits in memory",
                time.strftime("%H:%M:%S"),
                without_secrets(self._store.uri),
                why,
            )

    def _tell_up(self) -> None:
        if not self.lost:
            self._failure = ""
        if self._is_down:
            self._is_down = False
            log.warning(
                "tracking: since %s %s answers again; what has waited is being stored",
                time.strftime("%H:%M:%S"),
                without_secrets(self._store.uri),
            )


def incomplete(
    run_id: str,
    missing: Counter[str],
    failure: str,
    timeout: float,
    *,
    has_end: bool = True,
) -> TrackingError:
    """What to raise where something is not stored: how much, and why.

    Args:
        run_id: MLflow's id of the run.
        missing: how many entries, by kind.
        failure: what the store said; empty where it said nothing.
        timeout: for how many seconds nothing moved.
        has_end: whether the store knows that the run has ended.
    """
    parts = [
        f"{count} {kind}" + ("" if count == 1 else "s")
        for kind, count in missing.items()
    ]
    if not has_end:
        parts.append("its end, so that it is shown as running")
    why = failure or f"the store did not answer, and took nothing for {timeout:g} s"
    return TrackingError(
        f"not stored in run {run_id}: {', '.join(parts)} ({why})",
        not_stored=missing.total(),
        points_not_stored=missing["point"],
        has_end=has_end,
    )


def _named(batch: Batch) -> str:
    """What a batch of one holds, for people."""
    for point in batch.points:
        return f"metric {point.name} at step {point.step}"
    for name in batch.params:
        return f"param {name}"
    for name in batch.tags:
        return f"tag {name}"
    return "an artifact"
