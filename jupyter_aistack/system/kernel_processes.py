"""Which process is a Jupyter kernel itself, and which was only started below it.

A kernelspec may start a kernel through another program (``conda run``, ``uv run``, a
shell), which stays its parent. All of these are told the kernel's connection file.
What a notebook starts is not told it, and what is forked from a kernel runs the very
same command as its parent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from .processes import ancestors

_CONNECTION_FILE = re.compile(rb"[^\s\"'=/]+\.json")
_KERNEL = b"AISTACK_KERNEL="

Command = Sequence[bytes]
"""The words of a command line."""


def is_kernel(pid: int, launched: int) -> bool:
    """Whether a process is a kernel itself.

    Args:
        pid: the process.
        launched: the process that was launched as this kernel, which is `pid` or one of
            those above it.
    """
    line = ancestors(pid)
    if launched not in line:
        return False
    way = line[: line.index(launched) + 1][::-1]
    return way[_kernel_among([_command_of(each) for each in way])] == pid


def launched_as_kernel(pid: int, kernel_id: str) -> int | None:
    """The process that was launched as a kernel, `pid` or one of those above it, as
    their environments say; None where they do not.
    """
    launched = None
    for each in ancestors(pid):
        if _KERNEL + os.fsencode(kernel_id) not in _words_of(each, "environ"):
            break
        launched = each
    return launched


def _kernel_among(commands: Sequence[Command]) -> int:
    """Which of some processes is the kernel, by their commands from the launched
    process downwards.
    """
    file = _connection_file(commands[0])
    kernel = 0
    for place in range(1, len(commands)):
        is_told = bool(file) and any(file in word for word in commands[place])
        is_forked = commands[place] == commands[place - 1]
        if is_told and not is_forked:
            kernel = place
    return kernel


def _connection_file(command: Command) -> bytes:
    """The name of the connection file in a kernel's command; empty for none."""
    names = [name for word in command for name in _CONNECTION_FILE.findall(word)]
    return names[-1] if names else b""


def _command_of(pid: int) -> Command:
    return _words_of(pid, "cmdline")


def _words_of(pid: int, file: str) -> Command:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as content:
            return content.read().split(b"\0")
    except OSError:
        return []
