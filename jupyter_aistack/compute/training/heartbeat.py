"""A rank's heartbeat: where its loop is, written twice a second by a thread of its own,
so that the notebook can tell who holds the others up.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

from jupyter_aistack.system.files import write_atomic

BEAT_SECONDS = 0.5

_COLLECTIVES = (
    os.path.join("torch", "distributed", ""),
    os.path.join("torch", "nn", "parallel", "distributed.py"),
    os.path.join("torch", "autograd", ""),
)
"""Whose frames mean that the loop may be waiting for the other ranks; DDP averages
gradients inside the backward pass.
"""


class Phase(StrEnum):
    """What a rank is at."""

    STARTING = "starting"
    JOINING = "joining the other ranks"
    COMPUTING = "in its loop"
    WAITING = "in a collective"
    FINISHED = "past its loop"

    @property
    def is_waiting(self) -> bool:
        """Whether the rank may be waiting for the others."""
        return self in (Phase.JOINING, Phase.WAITING, Phase.FINISHED)


@dataclass(frozen=True, kw_only=True)
class RankBeat:
    """Where a rank was when its heart beat last.

    Attributes:
        number: 1, and one more at each beat.
        host, pid: where its process is.
        phase: what it is at.
        progress: grows whenever the loop tells that it went on.
        epoch, batch: the epoch under way, and batches handed out in it.
        place: the line of the user's code, for people; empty outside the loop.
    """

    number: int
    host: str
    pid: int
    phase: Phase
    progress: int
    epoch: int
    batch: int
    place: str

    def to_json(self) -> str:
        """The beat as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RankBeat:
        """The beat that :meth:`to_json` has written."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "phase": Phase(values["phase"])})


class Heartbeat:
    """Writes a beat every half second, for the thread that makes it.

    Attributes:
        phase: what the rank is at, as far as it tells.
        epoch, batch: as in a beat.
    """

    def __init__(self, file: Path) -> None:
        self.phase = Phase.STARTING
        self.epoch = 0
        self.batch = 0
        self._file = file
        self._progress = 0
        self._thread_id = threading.get_ident()
        self._host = socket.gethostname()

    def start(self) -> None:
        """Beat until the process ends."""
        threading.Thread(target=self._beat, name="aistack-heart", daemon=True).start()

    def advance(self, *, epoch: int | None = None, batch: int | None = None) -> None:
        """The loop went on; to this epoch and batch, if it did that."""
        self._progress += 1
        if epoch is not None:
            self.epoch = epoch
        if batch is not None:
            self.batch = batch

    def look(self, number: int) -> RankBeat:
        """Where the rank is now."""
        frames = list(_frames(sys._current_frames().get(self._thread_id)))
        phase = self.phase
        if phase is Phase.COMPUTING and any(map(_is_collective, frames)):
            phase = Phase.WAITING
        return RankBeat(
            number=number,
            host=self._host,
            pid=os.getpid(),
            phase=phase,
            progress=self._progress,
            epoch=self.epoch,
            batch=self.batch,
            place=next(filter(None, map(_place, frames)), ""),
        )

    def _beat(self) -> None:
        for number in itertools.count(1):
            # A full disk, or a folder that is being removed: the heart beats on.
            with contextlib.suppress(OSError):
                write_atomic(self._file, self.look(number).to_json())
            time.sleep(BEAT_SECONDS)


def read_beat(file: Path) -> RankBeat | None:
    """A rank's last beat; None before its first."""
    try:
        return RankBeat.from_json(file.read_text())
    except FileNotFoundError:
        return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_collective(frame: FrameType) -> bool:
    return any(part in frame.f_code.co_filename for part in _COLLECTIVES)


def _place(frame: FrameType) -> str:
    """The line and function of a frame of the user's code; empty for a library's."""
    file = frame.f_code.co_filename
    if file.startswith(_LIBRARIES):
        return ""
    return f"line {frame.f_lineno} of {frame.f_code.co_name}"


_LIBRARIES = (
    str(Path(__file__).parents[2]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<frozen",
)
