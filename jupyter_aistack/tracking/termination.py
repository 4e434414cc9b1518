"""Ending open runs when the process is told to end.

A script that gets SIGTERM (``timeout``, systemd, ``scancel``, a kernel that is shut
down) or SIGHUP (its terminal is closed) dies at once where nobody handles it, with what
its runs have not stored yet.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class TerminationGuard:
    """Calls the ends of open runs before a signal ends the process, as the signal would
    have ended it. A handler of the user's own, or a signal that is ignored, is left
    alone.
    """

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self._pid = os.getpid()

    def add(self, end: Callable[[], None]) -> None:
        """Have `end` called. Only Python's main thread can see to that; runs that begin
        in others are covered while one of the main thread's is open.
        """
        if self._pid != os.getpid():
            self._ends = []
            self._pid = os.getpid()
        self._ends.append(end)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self.on_signal)

    def remove(self, end: Callable[[], None]) -> None:
        """Call `end` no more. Removing twice is allowed."""
        if end in self._ends:
            self._ends.remove(end)
        is_main = threading.current_thread() is threading.main_thread()
        if self._ends or not is_main:
            return
        for number in SIGNALS:
            if signal.getsignal(number) == self.on_signal:
                signal.signal(number, signal.SIG_DFL)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """End all that is open, and let the signal do what it does by default."""
        # A second signal ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        try:
            if self._pid == os.getpid():
                for end in list(self._ends):
                    end()
        finally:
            signal.raise_signal(number)


guard = TerminationGuard()
"""The guard of this process."""
