"""Processes whose first thread has ended while another goes on."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.fakes.waiting import wait_until

_EXITS = {"x86_64": 60, "aarch64": 93}
"""Numbers of the call that ends one thread."""
_CODE = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).syscall({exit}, 0)
"""

needs_first_thread_to_end = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in _EXITS,
    reason="ending the first thread alone is tried on Linux on x86-64 and ARM",
)


@contextmanager
def first_thread_over() -> Iterator[subprocess.Popen[bytes]]:
    """Such a process; it is killed at the end."""
    code = _CODE.format(exit=_EXITS[platform.machine()])
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        looked_at = psutil.Process(process.pid)
        wait_until(lambda: looked_at.status() == psutil.STATUS_ZOMBIE)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
