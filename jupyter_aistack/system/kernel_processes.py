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

    depth = line.index(launched)
    downwards = list(reversed(line[: depth + 1]))
    commands = [_command_of(process) for process in downwards]
    kernel = downwards[_kernel_among(commands)]
    return kernel == pid


def is_launched_kernel(pid: int, kernel_id: str) -> bool:
    """Whether a process is the kernel that its environment names, and was not only
    started below it.
    """
    launched = launched_as_kernel(pid, kernel_id) if kernel_id else None
    return launched is None or is_kernel(pid, launched)


def launched_as_kernel(pid: int, kernel_id: str) -> int | None:
    """The process that was launched as a kernel, `pid` or one of those above it, as
    their environments say; None where they do not.
    """
    variable = _KERNEL + os.fsencode(kernel_id)
    launched = None
    for process in ancestors(pid):
        environment = _words_of(process, "environ")
        if variable not in environment:
            break
        launched = process
    return launched


def _kernel_among(commands: Sequence[Command]) -> int:
    """Which of some processes is the kernel, by their commands from the launched
    process downwards.
    """
    file = _connection_file(commands[0])
    kernel = 0
    if not file:
        return kernel

    parent: Command = commands[0]
    for place, command in enumerate(commands):
        is_told = any(file in word for word in command)
        is_forked = command == parent
        if is_told and not is_forked:
            kernel = place
        parent = command
    return kernel


def _connection_file(command: Command) -> bytes:
    """The name of the connection file in a kernel's command; empty for none."""
    names: list[bytes] = []
    for word in command:
        names.extend(_CONNECTION_FILE.findall(word))
    return names[-1] if names else b""


def _command_of(pid: int) -> Command:
    return _words_of(pid, "cmdline")


def _words_of(pid: int, file: str) -> Command:
    path = f"/proc/{pid}/{file}"
    try:
        with open(path, "rb") as content:
            text = content.read()
    except OSError:
        return []
    return text.split(b"\0")
