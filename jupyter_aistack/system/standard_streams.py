"""The streams that a process was started with: each of them may be closed, be read by
nobody, or lead to a disk that is full.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
"""By their numbers."""


def tell(line: str, *, end: str = "\n") -> None:
    """Write a line to stderr, where people look; where nobody can, nothing happens."""
    write_line(sys.stderr, line, end=end)


def write_line(stream: TextIO | None, line: str, *, end: str = "\n") -> None:
    """Write a line of news to a stream; one that is lost ends nobody's work.

    Args:
        stream: None where Python found it closed.
        line: what to write.
        end: what follows it.
    """
    if stream is None:
        return
    # ValueError: it was closed since.
    with contextlib.suppress(OSError, ValueError):
        stream.write(f"{line}{end}")
        stream.flush()


def open_closed_streams() -> None:
    """Have each stream that is closed lead nowhere. Else the next file that is opened
    gets its number, and what is started here writes into that file.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        descriptor = os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, descriptor == number)
        setattr(sys, name, open(descriptor, mode, encoding="utf-8"))  # noqa: SIM115


def drop_unwritten(stream: TextIO) -> None:
    """Let a stream that cannot be written lead nowhere, so that Python's own last
    attempt at its end does not complain.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
