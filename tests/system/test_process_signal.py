from __future__ import annotations

import os
import signal
import subprocess

import pytest

from jupyter_aistack.system.process_signal import send_signal
from jupyter_aistack.system.processes import started_at


def test_a_process_is_signalled_by_its_number_and_its_start() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        started = started_at(process.pid)
        assert started is not None
        # Another process had the number once: it is left alone.
        assert send_signal(process.pid, started - 60, signal.SIGKILL) is False
        assert process.poll() is None
        assert send_signal(process.pid, started, signal.SIGKILL) is True
        assert process.wait() == -signal.SIGKILL
        assert send_signal(process.pid, started, signal.SIGKILL) is False


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be another user")
def test_another_user_s_process_is_refused_by_the_system() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        started = started_at(process.pid)
        code = (
            "import os, signal\n"
            "from jupyter_aistack.system.process_signal import send_signal\n"
            "os.setuid(23001)\n"
            f"try: send_signal({process.pid}, {started}, signal.SIGKILL)\n"
            "except PermissionError: print('refused')"
        )
        import sys

        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert answer.stdout == "refused\n"
        assert process.poll() is None
        process.kill()
