"""A process that outlives its launcher for as long as what that has launched runs.

A launcher that is killed with SIGKILL passes nothing on. The guard, a process forked
from it, hears of its end, asks all of the command to end, and lives until all of it has.
So a lease that is tied to the guard is nobody else's before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import TracebackType

LOOK_SECONDS = 0.1
"""Between two looks whether a command without its launcher still runs."""
_DIGITS = 32
_LAST_DESCRIPTOR = 4096


class CommandGuard:
    """Guards what this process launches, inside its ``with`` block. Enter it before
    there are threads, or anything that a fork should not have.
    """

    def __init__(self) -> None:
        self.pid = 0
        """The guard."""
        self._line = -1

    def __enter__(self) -> CommandGuard:
        heard, self._line = os.pipe()
        # Blocked before there is a guard: no handler of ours may run in it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _guard(heard)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(heard)
        return self

    def watch(self, group: int) -> None:
        """Tell the guard the process group of the command, before its program runs. From
        the command's own process: while that can tell, the guard waits to hear it.
        """
        os.write(self._line, f"{group}\n".encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The launcher sees to the rest itself: the guard ends."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._line)


def _guard(heard: int) -> None:
    """All that the guard does. It never returns, and runs nothing of its launcher's."""
    try:
        # What ends the launcher's group must not end the guard with it.
        os.setpgid(0, 0)
        os.closerange(3, heard)
        os.closerange(heard + 1, _LAST_DESCRIPTOR)
        told = b""
        while more := os.read(heard, _DIGITS):
            told += more
        if told:
            _end(int(told.split()[-1]))
    finally:
        os._exit(0)


def _end(group: int) -> None:
    """Ask a group to end, and wait until it has."""
    # One that is stopped hears nothing until it goes on.
    for number in (signal.SIGTERM, signal.SIGCONT):
        _send(group, number)
    while _send(group, 0):
        time.sleep(LOOK_SECONDS)


def _send(group: int, number: int) -> bool:
    """Whether there is still anybody in a group."""
    with contextlib.suppress(PermissionError):  # they act as another user: they run
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return False
    return True
