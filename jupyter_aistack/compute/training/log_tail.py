"""Following files that others append to: how metrics and prints of the ranks reach the
notebook.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class LogTail:
    """Reads what was appended since the last time, by whole lines. An append is one
    write, so no line is ever mixed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._offset = 0

    def lines(self) -> list[str]:
        """The complete lines since the last call; none while there is no file."""
        try:
            with self.file.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()

    def records(self) -> list[dict[str, Any]]:
        """The same, each line as JSON."""
        return [json.loads(line) for line in self.lines()]
