"""What a process was started with."""

from __future__ import annotations

from pathlib import Path

MAX_COMMAND = 200
"""Characters of a command line that are kept: who runs what, not all it is told."""


def command_of(pid: int) -> str:
    """The command line of a process, its beginning; empty where it cannot be seen.

    Anybody may choose what theirs says, so it tells people what ran and decides nothing.
    """
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()[: 4 * MAX_COMMAND]
    except OSError:
        return ""
    words = text.rstrip(b"\0").replace(b"\0", b" ")
    return words.decode("utf-8", "replace").strip()[:MAX_COMMAND]
