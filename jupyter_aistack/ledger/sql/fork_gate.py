"""No fork amid a database call of another thread.

SQLite and the drivers guard what a process has but once by locks of their own. A child
that is forked while another thread holds such a lock inherits it, and nobody there will
ever let go of it: its first database call would wait for ever.
"""

from __future__ import annotations

import threading

FORK_SECONDS = 1.0
"""A fork waits for so long at most: a call that takes longer waits for another process
to let go of the database, and asleep it holds none of those locks. No call may give up
waiting just then: it would be awake."""


class ForkGate:
    """Calls go through it at once, and a fork waits until none is under way: a call is a
    ``with`` block of the gate, which begins when no fork is about to happen.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """In a forked child: the calls that were under way are the parent's."""
        self._changed = threading.Condition()
        self._under_way = 0
        self._forks = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._under_way += 1

    def __exit__(self, *_error: object) -> None:
        with self._changed:
            self._under_way -= 1
            if self._forks:
                self._changed.notify_all()

    def close(self, seconds: float = FORK_SECONDS) -> bool:
        """Before a fork: let no call begin, and wait for those under way. Whether they
        have ended in time.
        """
        with self._changed:
            self._forks += 1
            return self._changed.wait_for(lambda: not self._under_way, seconds)

    def open(self) -> None:
        """After a fork, in the parent."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()
