"""What a daemon's logs say of faults. Lines are ``[time Control PID] text`` or ``[time
Server PID] text``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

CONTROL_LOG = "control.log"
MAX_READ = 1 << 20
"""Bytes read of a log at once; what lies further back has been seen, or is too old to
matter.
"""

KEPT_BYTES = 1 << 16
"""How much of a log is left for people when it is cut."""
CUT_BYTES = 1 << 18
"""A log that is larger is cut once it has been read. The daemon writes five lines for
each question it is asked, 30 MB a day, and its folder is mostly in memory (a tmpfs).
"""

_FAULT = re.compile(
    r"\b(?:fault|fatal)", re.IGNORECASE
)  # a word's beginning: "default" is no fault
_SERVER_ENDS = re.compile(r"Server encountered a fatal exception", re.IGNORECASE)
"""A server that ends, mostly at its start: no client caused that
(NVIDIA/k8s-device-plugin#762).
"""
_LABELLED = re.compile(r"client[ a-z]*\{?\s*PID:?\s*(\d+)", re.IGNORECASE)
_PAIR = re.compile(r"client[ a-z]*\{\s*(\d+)\s*,\s*(\d+)\s*\}", re.IGNORECASE)
"""Older drivers give two numbers without names, of which the process may be either."""
_PLAIN = re.compile(r"client(?: process)? (\d+)", re.IGNORECASE)
_STAMP = re.compile(r"^\[[^\]]*\] ")
_CHATTER = re.compile(
    r"Accepting connection|NEW UI|UI closed|Cmd:|User did not send valid credentials"
    r"|Removed Shm file|Starting (?:new server|control daemon)"
    r"|To connect CUDA applications|Server \S+ not found|[\d.]+[KMG]?$"
)
"""What a daemon writes of being asked, and of its own answers."""
_EXIT = re.compile(r"Server \d+ exited with status [1-9]")


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

    def new_fault(self, clients: Collection[int] = ()) -> LoggedFault | None:
        """The fault that the new lines tell of, if any; see `find_fault`."""
        return find_fault(self.new_lines(), clients)

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
        is_read = len(whole) == len(text)
        if is_read and size > CUT_BYTES:
            self._cut(file, size, text[-KEPT_BYTES:])
        return whole.decode(errors="replace").splitlines()

    def _cut(self, file: Path, size: int, last: bytes) -> None:
        """Empty a log whose `size` bytes have been read, and leave its `last` beside
        it. The daemon appends, so it goes on at the beginning.
        """
        with contextlib.suppress(OSError), file.open("r+b") as opened:
            file.with_suffix(".old").write_bytes(last)
            if os.fstat(opened.fileno()).st_size == size:  # nothing has come meanwhile
                opened.truncate(0)
                self._read[file] = 0


def find_fault(
    lines: Iterable[str], clients: Collection[int] = ()
) -> LoggedFault | None:
    """The first line that tells of a fault, with the client that it or a later line
    names.

    Args:
        clients: the processes that are connected; they tell which of two numbers is
            one.
    """
    texts = [_without_stamp(line) for line in lines]
    faults = [text for text in texts if _is_fault(text)]
    if not faults:
        return None
    named = (_client_in(text, clients) for text in faults)
    pid = next((pid for pid in named if pid is not None), None)
    return LoggedFault(line=faults[0], pid=pid)


def _is_fault(text: str) -> bool:
    is_about_faults = _FAULT.search(text) is not None
    return (
        is_about_faults and not _SERVER_ENDS.search(text) and not _CHATTER.match(text)
    )


def _client_in(text: str, clients: Collection[int]) -> int | None:
    named = _LABELLED.search(text)
    if named is not None:
        return int(named[1])
    pair = _PAIR.search(text)
    if pair is not None:
        numbers = map(int, pair.groups())
        return next((number for number in numbers if number in clients), None)
    plain = _PLAIN.search(text)
    return int(plain[1]) if plain else None


def _without_stamp(line: str) -> str:
    return _STAMP.sub("", line)


def last_words(folder: Path) -> str:
    """The last line of the servers' logs that is no chatter, or else of the daemon's,
    without its stamp; empty when there is none.
    """
    for files in (
        (*folder.glob("server.log"), *folder.glob("*/server.log")),
        folder.glob("control.log"),
    ):
        texts = [
            _without_stamp(line).strip()
            for file in files
            for line in _text(file).splitlines()
        ]
        telling = [text for text in texts if text and not _CHATTER.match(text)]
        if telling:
            return telling[-1]
    return ""


def control_log_size(folder: Path) -> int:
    """Bytes in the daemon's log now; 0 where there is none."""
    try:
        return (folder / CONTROL_LOG).stat().st_size
    except OSError:
        return 0


def has_server_failed(folder: Path, since: int) -> bool:
    """Whether the daemon's log tells, after its first `since` bytes, that a server
    ended with an error.
    """
    try:
        content = (folder / CONTROL_LOG).read_bytes()
    except OSError:
        return False
    return _EXIT.search(content[since:].decode(errors="replace")) is not None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
