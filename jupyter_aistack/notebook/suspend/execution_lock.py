"""Whether code runs in this kernel: its device state is moved between cells only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ExecutionLock:
    """Keeps cells and moves of device state apart: many cells, or one move.

    A cell that begins amid a move waits for its end, and may be interrupted then.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_moving = False

    def acquire(self, *_: object) -> None:
        """A cell begins; IPython's ``pre_execute``, which comes for silent cells and
        widgets' callbacks too, whatever thread they run in.
        """
        with self._changed:
            # Counted before the wait: IPython calls post_execute for a cell that was
            # interrupted while it waited, too.
            self._running += 1
            self._changed.wait_for(lambda: not self._is_moving)

    def release(self, *_: object) -> None:
        """A cell has ended; IPython's ``post_execute``, which comes once more than
        ``pre_execute`` for an empty cell.
        """
        with self._changed:
            self._running = max(0, self._running - 1)
            self._changed.notify_all()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside the ``with`` block the cell, which only waits, does not count as
        running.
        """
        self.release()
        try:
            yield
        finally:
            self.acquire()

    @contextmanager
    def block(self, patience_seconds: float = 0.0) -> Iterator[bool]:
        """Whether nothing runs, now or within the patience; if so, no cell begins
        inside the ``with`` block.
        """
        with self._changed:
            is_blocked = self._changed.wait_for(self._is_idle, patience_seconds)
            if is_blocked:
                self._is_moving = True
        try:
            yield is_blocked
        finally:
            if is_blocked:
                with self._changed:
                    self._is_moving = False
                    self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not self._running and not self._is_moving
