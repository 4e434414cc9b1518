"""The background writer: callers append to a queue in memory and go on; one thread
writes batches to the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from jupyter_aistack.exceptions import TrackingError

from .store import (
    MAX_POINTS,
    MAX_TEXTS,
    Batch,
    MetricPoint,
    RejectedByStore,
    Store,
    first_line,
    without_secrets,
)

log = logging.getLogger("jupyter_aistack")

GATHER_SECONDS = 0.25
"""How long the writer lets entries gather, so that a fast loop becomes few writes."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
Entry = tuple[str, Any]


class Writer:
    """Writes to `store` from a thread of its own.

    A store that fails is tried again, waiting longer each time; the user is warned
    once. Nothing that goes wrong reaches the caller before :meth:`flush`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._is_urgent = False  # a caller waits for the queue to empty
        self._is_closed = False
        self._is_writing = False
        self._has_warned = False
        self._failure = ""
        self.points_stored = 0
        self.entries_lost = 0
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

    def job(self, job: Callable[[], None]) -> None:
        """Queue a call that is made from the writer's thread, in its turn."""
        self._put(("job", job))

    def _put(self, entry: Entry) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many entries are not stored yet."""
        return len(self._entries)

    def flush(self, timeout: float) -> None:
        """Wait until all is stored, at most `timeout` seconds.

        Raises:
            TrackingError: how many entries are not stored, and why.
        """
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()
            done = self._changed.wait_for(
                lambda: not self._entries and not self._is_writing, timeout
            )
            self._is_urgent = False
            missing = self.entries_lost + (0 if done else len(self._entries))
        if missing:
            why = self._failure or f"the store did not answer within {timeout:g} s"
            entries = "1 entry" if missing == 1 else f"{missing} entries"
            message = f"not stored in run {self._store.run_id}: {entries} ({why})"
            raise TrackingError(message, not_stored=missing)

    def close(self) -> None:
        """Stop the thread; what is still queued is given up. Closing twice is
        allowed.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

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
                self._is_writing = True
            is_stored = self._write(batch)
            with self._changed:
                self._is_writing = False
                if is_stored:
                    for _ in range(len(batch)):
                        self._entries.popleft()
                    pause = FIRST_PAUSE_SECONDS
                else:
                    self._changed.wait_for(lambda: self._is_closed, pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                self._changed.notify_all()

    def _is_due(self) -> bool:
        return self._is_closed or self._is_urgent or len(self._entries) >= MAX_POINTS

    def _peek(self) -> Batch:
        """The entries at the head of the queue that fit one write; they leave the queue
        once stored.
        """
        batch = Batch()
        for kind, value in self._entries:
            if len(batch) >= MAX_POINTS:
                break
            if kind == "job":
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

    def _write(self, batch: Batch) -> bool:
        """Whether the batch is done with: stored, or refused for good."""
        try:
            if batch.job is not None:
                batch.job()
            else:
                self._store.write(batch)
        except RejectedByStore as error:
            self.entries_lost += len(batch)
            self._warn_once(error.message, "it cannot be stored as it is")
            return True
        except Exception as error:
            # Any library may fail in any way below; the loop being tracked must go on.
            self._warn_once(first_line(error), "it is tried again")
            return False
        self.points_stored += len(batch.points)
        return True

    def _warn_once(self, why: str, prospect: str) -> None:
        self._failure = why
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "tracking: since %s not everything reaches %s (%s); %s",
                time.strftime("%H:%M:%S"),
                without_secrets(self._store.uri),
                why,
                prospect,
            )
