"""Threads as anybody can see them: by their names."""

from __future__ import annotations

import threading


class NewThreads:
    """The threads that were started since it was made, and live."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def named(self, name: str) -> list[threading.Thread]:
        """Those of that name."""
        living = set(threading.enumerate()) - self._before
        return [thread for thread in living if thread.name == name]
