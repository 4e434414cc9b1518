"""The end of a process that need not be a child of this process: asked for by a signal
that reaches no other process, and waited for without looking again and again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time

from .processes import is_alive

POLL_SECONDS = 0.5
"""Between two looks at the process, on systems that cannot wait for its end."""


class ProcessExit:
    """The end of a process, to be waited for; a context manager.

    Args:
        pid: the process.
        started_at: when it started (see `processes.started_at`), so that a process
            that has its number since is not taken for it; None where that is not known.
    """

    def __init__(self, pid: int, started_at: float | None = None) -> None:
        self._pid = pid
        self._started_at = started_at
        try:
            self._file: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, or ended already
            self._file = None
        # Asked after the file was opened: what it names cannot change any more.
        self._is_over = not is_alive(pid, started_at)

    def __enter__(self) -> ProcessExit:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal. Nothing happens where it has ended.

        Raises:
            PermissionError: it is another user's.
        """
        if self._is_over:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._file is not None:
                signal.pidfd_send_signal(self._file, number)
            else:
                os.kill(self._pid, number)

    def wait(
        self, seconds: float | None, *, unless: socket.socket | None = None
    ) -> bool:
        """Wait for `seconds` (None: for ever), or until there is something to read from
        `unless`; whether the process has ended.
        """
        if self._is_over:
            return True
        bells = [] if unless is None else [unless.fileno()]
        if self._file is not None:
            self._is_over = self._file in _readable([self._file, *bells], seconds)
            return self._is_over
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        while is_alive(self._pid, self._started_at):
            left = min(deadline - time.monotonic(), POLL_SECONDS)
            if left <= 0 or _readable(bells, left):
                return False
        self._is_over = True
        return True


def _readable(files: list[int], seconds: float | None) -> list[int]:
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [file for file, _ in poll.poll(None if seconds is None else seconds * 1000)]
