"""What a process was started with, for people."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jupyter_aistack.system.command_lines import MAX_COMMAND, command_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_words_of_a_command_are_told() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        # Until it has become the command, it is still a copy of this process.
        told = command_of(process.pid)
        while not told.startswith("sleep"):
            assert process.poll() is None
            told = command_of(process.pid)
        process.kill()
    assert told == "sleep 60"


def test_a_long_command_is_cut() -> None:
    code = "import sys; sys.stdin.read()"
    words = [sys.executable, "-c", code, "x" * 1000]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        told = command_of(process.pid)
        while "import sys" not in told:
            assert process.poll() is None
            told = command_of(process.pid)
    assert len(told) == MAX_COMMAND


def test_a_process_that_is_not_there_has_none() -> None:
    assert command_of(2**22 + 1) == ""
    assert command_of(os.getpid()) != ""
