"""Tells the granting side when cells ran, so that what a lease used can be told apart
by cell.

What is told is a name and two times, never the code. It is told from a thread, once a
second at most and only while
this kernel holds a lease: a cell waits for nobody.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from typing import Any

from jupyter_aistack.exceptions import AIStackError

BATCH_SECONDS = 1.0
"""Between the first word of a batch and its sending; most cells have ended by then and
are told of once.
"""
MOST_TOLD = 500
"""Spans kept for a granting side that does not answer; beyond that the oldest are
dropped.
"""

Span = dict[str, Any]


class CellTimer:
    """IPython's ``pre_run_cell`` and ``post_run_cell``; neither raises.

    Args:
        shell: gives a cell its number.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._running: tuple[int, str, float] | None = None
        self._is_told = False
        self._waiting: dict[tuple[str, float], Span] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def before_cell(self, info: Any) -> None:
        """Note the time, and have the cell told of if this kernel holds a lease."""
        self._running = (
            _number(self._shell),
            str(getattr(info, "raw_cell", "") or ""),
            time.time(),
        )
        if is_leased():
            self._tell(ended_at=None)

    def after_cell(self, *_: Any) -> None:
        """Have its end told of."""
        if self._running is not None and (
            self._is_told or is_leased()
        ):  # one that has begun must end
            self._tell(ended_at=time.time())
        self._running = None
        self._is_told = False

    def tell_now(self, *, is_over: bool = False) -> None:
        """Have the running cell told of and wait for it: its lease came with the cell,
        or goes before it ends.
        """
        if self._running is not None:
            self._note(ended_at=time.time() if is_over else None)
            self._send()

    def _tell(self, *, ended_at: float | None) -> None:
        self._note(ended_at=ended_at)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._work, name="aistack-cells", daemon=True
            )
            self._thread.start()

    def _note(self, *, ended_at: float | None) -> None:
        assert self._running is not None
        count, code, began_at = self._running
        self._is_told = True
        name = (
            f"{count}:{hashlib.sha256(code.encode('utf-8', 'replace')).hexdigest()[:8]}"
        )
        with self._changed:
            self._waiting[name, began_at] = {
                "cell": name,
                "began_at": began_at,
                "ended_at": ended_at,
            }
            self._drop_oldest()
            self._changed.notify_all()

    def _drop_oldest(self) -> None:
        while len(self._waiting) > MOST_TOLD:
            del self._waiting[next(iter(self._waiting))]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                self._changed.wait_for(
                    lambda: len(self._waiting) >= MOST_TOLD, BATCH_SECONDS
                )
            if not self._send():
                time.sleep(BATCH_SECONDS)

    def _send(self) -> bool:
        """Send what is to be told; what could not be told is told the next time."""
        from jupyter_aistack.client import client as clients

        with self._changed:
            told = self._waiting
            self._waiting = {}
        try:
            clients.connect().call("cells", cells=list(told.values()))
        except AIStackError:
            with self._changed:
                self._waiting = {**told, **self._waiting}
                self._drop_oldest()
            return False
        return True


def _number(shell: Any) -> int:
    """The number of the cell that is about to run.

    Some versions of IPython count it before they tell of it, some after; none has
    stored its input yet.
    """
    history = getattr(shell, "history_manager", None)
    return shell.execution_count if history is None else len(history.input_hist_raw)


def is_leased() -> bool:
    """Whether this kernel holds a lease, or its workers may; nobody is asked."""
    return (
        bool(os.environ.get("AISTACK_LEASE"))
        or "jupyter_aistack.compute.clusters.cluster" in sys.modules
    )
