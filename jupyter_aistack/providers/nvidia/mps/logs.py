"""What a daemon's logs say of faults. Lines are ``[time Control PID] text`` or ``[time
Server PID] text``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_READ = 1 << 20
"""Bytes read of a log at once; what lies further back has been seen, or is too old to
matter.
"""

_FAULT = re.compile(
    r"\b(?:fault|fatal)", re.IGNORECASE
)  # a word's beginning: "default" is no fault
_CLIENT = re.compile(r"client[ a-z]*\{?\s*(?:PID:?\s*)?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class LoggedFault:
    """A fault the logs tell of, and the client they name; None when they name none."""

    line: str
    pid: int | None


class Logs:
    """The logs of one daemon and its servers, read on from where they were left.

    Args:
        folder: where they are.
        from_end: skip what is in them already; it is from before this process watched.
    """

    def __init__(self, folder: Path, *, from_end: bool = False) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        if from_end:
            self.new_lines()

    def new_lines(self) -> list[str]:
        """The lines written since the last call."""
        files = (*self._folder.glob("*.log"), *self._folder.glob("*/server.log"))
        return [line for file in sorted(files) for line in self._rest(file)]

    def new_fault(self) -> LoggedFault | None:
        """The fault that the new lines tell of, if any."""
        return find_fault(self.new_lines())

    def _rest(self, file: Path) -> list[str]:
        try:
            with file.open("rb") as opened:
                size = opened.seek(0, 2)
                start = self._read.get(file, 0)
                start = 0 if start > size else start  # it was started anew
                opened.seek(max(start, size - MAX_READ))
                text = opened.read()
        except OSError:
            return []
        whole = text[
            : text.rfind(b"\n") + 1
        ]  # a line that is half written is read when it is whole
        self._read[file] = size - len(text) + len(whole)
        return whole.decode(errors="replace").splitlines()


def find_fault(lines: Iterable[str]) -> LoggedFault | None:
    """The first line that tells of a fault, with the client that it or a later line
    names.
    """
    faults = [line for line in lines if _FAULT.search(line)]
    named = [match for line in faults if (match := _CLIENT.search(line))]
    if not faults:
        return None
    return LoggedFault(line=faults[0], pid=int(named[0][1]) if named else None)


def last_words(folder: Path) -> str:
    """The last line of the servers' logs, or else of the daemon's, without its stamp;
    empty when there is none.
    """
    for files in (
        (*folder.glob("server.log"), *folder.glob("*/server.log")),
        folder.glob("control.log"),
    ):
        lines = [
            line
            for file in files
            for line in file.read_text(errors="replace").splitlines()
            if line.strip()
        ]
        if lines:
            return lines[-1].rpartition("] ")[2]
    return ""
