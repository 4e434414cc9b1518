"""Signals to one process and to no later process of its number."""

from __future__ import annotations

import os
import signal

from .processes import is_alive


def send_signal(pid: int, started: float, number: signal.Signals) -> bool:
    """Send a signal to a process; whether that process still ran.

    The process is held by a descriptor before its start is looked at: a number that is
    given to another process in between is not signalled.

    Args:
        pid: its number here.
        started: when it started, in seconds since the machine did.
        number: the signal.

    Raises:
        PermissionError: it is another user's.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid, started):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
