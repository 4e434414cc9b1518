"""IPython shells for tests."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def new_shell() -> InteractiveShell:
    """A shell without a history: each history is a thread and an SQLite connection that
    outlive the test.
    """
    return InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))


def gpu(shell: InteractiveShell, line: str) -> str:
    """What ``%gpu line`` shows as text."""
    return str(shell.run_line_magic("gpu", line))
