"""Whether code runs in this kernel: its device state is moved between cells only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ExecutionLock:
    """Keeps cells and moves apart. A cell that begins amid a move waits for its end,
    and may be interrupted then.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_moving = False

    def begins(self, *_: object) -> None:
        """IPython's ``pre_execute``: cells, silent ones, widgets' callbacks, whatever
        thread they run in.
        """
        with self._changed:
            self._running += 1
            self._changed.wait_for(lambda: not self._is_moving)

    def ends(self, *_: object) -> None:
        """IPython's ``post_execute``, which comes once more than ``pre_execute`` for an
        empty cell.
        """
        with self._changed:
            self._running = max(0, self._running - 1)
            self._changed.notify_all()

    @contextmanager
    def away(self) -> Iterator[None]:
        """A cell that only waits inside the ``with`` block is none meanwhile."""
        self.ends()
        try:
            yield
        finally:
            with self._changed:
                self._running += 1
                self._changed.wait_for(lambda: not self._is_moving)

    @contextmanager
    def quiet(self, patience: float = 0.0) -> Iterator[bool]:
        """Whether nothing runs, now or within `patience` seconds; if so, nothing begins
        inside the ``with`` block.
        """
        with self._changed:
            is_quiet = self._changed.wait_for(
                lambda: not self._running and not self._is_moving, patience
            )
            self._is_moving = self._is_moving or is_quiet
        try:
            yield is_quiet
        finally:
            if is_quiet:
                with self._changed:
                    self._is_moving = False
                    self._changed.notify_all()
