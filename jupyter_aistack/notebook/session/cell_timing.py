"""Tells the granting side when cells ran, so that the use of a lease can be attributed
to cells.

What is sent is a name and two times, never the code. It is sent from a thread, once a
second at most and only while this kernel holds a lease: no cell waits for it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.notebook.module_names import CLUSTER

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

BATCH_SECONDS = 1.0
"""Between the first interval of a batch and its sending; most cells have ended by then
and are sent once.
"""
MAX_WAITING = 500
"""Intervals kept for a granting side that does not answer; beyond that the oldest are
dropped.
"""
CLOSE_SECONDS = 2.0
"""For the last interval to be sent, when the magics are unloaded."""

Interval = dict[str, Any]
"""A cell on the wire: ``cell``, ``began_at`` and ``ended_at``."""


@dataclass(frozen=True)
class _RunningCell:
    number: int
    code: str
    began_at: float

    @property
    def name(self) -> str:
        """The number, and a digest that tells another text of the same number."""
        digest = hashlib.sha256(self.code.encode("utf-8", "replace")).hexdigest()
        return f"{self.number}:{digest[:8]}"


class CellTimer:
    """IPython's ``pre_run_cell`` and ``post_run_cell``; neither raises.

    Args:
        shell: gives a cell its number.
        connect: gives the client.
    """

    def __init__(self, shell: Any, connect: Callable[[], Client]) -> None:
        self._shell = shell
        self._connect = connect
        self._running: _RunningCell | None = None
        self._is_begun = False
        self._waiting: dict[tuple[str, float], Interval] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def before_cell(self, info: Any) -> None:
        """Note the time, and send the beginning if this kernel holds a lease."""
        self._running = _RunningCell(
            number=_cell_number(self._shell),
            code=str(getattr(info, "raw_cell", "") or ""),
            began_at=time.time(),
        )
        if is_leased():
            self._send_soon(self._running, ended_at=None)

    def after_cell(self, *_: Any) -> None:
        """Send the end."""
        running = self._running
        # A beginning that was sent needs its end, even if the lease has gone meanwhile.
        is_wanted = self._is_begun or is_leased()
        if running is not None and is_wanted:
            self._send_soon(running, ended_at=time.time())
        self._running = None
        self._is_begun = False

    def tell_now(self, *, is_over: bool = False) -> None:
        """Send the running cell and wait for it: its lease came with the cell, or goes
        before it ends.
        """
        if self._running is not None:
            self._add(self._running, ended_at=time.time() if is_over else None)
            self._send()

    def close(self) -> None:
        """Send what waits, once, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _send_soon(self, cell: _RunningCell, *, ended_at: float | None) -> None:
        self._add(cell, ended_at=ended_at)
        if self._thread is None or not self._thread.is_alive():
            self._is_closed = False
            self._thread = threading.Thread(
                target=self._work, name="aistack-cells", daemon=True
            )
            self._thread.start()

    def _add(self, cell: _RunningCell, *, ended_at: float | None) -> None:
        self._is_begun = True
        name = cell.name
        with self._changed:
            self._waiting[name, cell.began_at] = {
                "cell": name,
                "began_at": cell.began_at,
                "ended_at": ended_at,
            }
            self._drop_oldest()
            self._changed.notify_all()

    def _drop_oldest(self) -> None:
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                self._changed.wait_for(self._is_batch_over, BATCH_SECONDS)
                if not self._waiting:
                    return
            is_sent = self._send()
            with self._changed:
                if self._is_closed:
                    return
                if not is_sent:
                    self._changed.wait_for(lambda: self._is_closed, BATCH_SECONDS)

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._is_closed

    def _is_batch_over(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or self._is_closed

    def _send(self) -> bool:
        """Send what waits; what could not be sent waits for the next time."""
        with self._changed:
            batch = self._waiting
            self._waiting = {}
        try:
            self._connect().call("cells", cells=list(batch.values()))
        except AIStackError:
            with self._changed:
                # What came meanwhile is newer, and may hold the end of the same cell.
                self._waiting = {**batch, **self._waiting}
                self._drop_oldest()
            return False
        return True


def _cell_number(shell: Any) -> int:
    """The number of the cell that is about to run.

    Some versions of IPython count it before this hook, some after; none has stored its
    input yet.
    """
    history = getattr(shell, "history_manager", None)
    if history is None:
        return int(shell.execution_count)
    return len(history.input_hist_raw)


def is_leased() -> bool:
    """Whether this kernel holds a lease, or its workers may; makes no call."""
    return bool(os.environ.get("AISTACK_LEASE")) or CLUSTER in sys.modules
