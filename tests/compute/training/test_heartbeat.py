from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from jupyter_aistack.compute.training.heartbeat import (
    Heartbeat,
    Phase,
    RankBeat,
    read_beat,
)
from tests.fakes.waiting import wait_until


def test_a_heart_that_beats_tells_where_the_loop_is(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "beat")
    heartbeat.start()
    heartbeat.phase = Phase.COMPUTING
    heartbeat.advance(epoch=3, batch=0)
    heartbeat.advance(batch=17)
    first = wait_until(lambda: read_beat(tmp_path / "beat"))
    beat = wait_until(lambda: later(tmp_path / "beat", first))
    assert (beat.epoch, beat.batch, beat.progress) == (3, 17, 2)
    assert (beat.host, beat.pid) == (socket.gethostname(), os.getpid())
    assert beat.phase is Phase.COMPUTING
    assert RankBeat.from_json(beat.to_json()) == beat


def later(file: Path, first: RankBeat) -> RankBeat | None:
    beat = read_beat(file)
    return beat if beat is not None and beat.number > first.number else None


def looked_from(tmp_path: Path, run: Callable[[Callable[[], None]], None]) -> RankBeat:
    """What another thread sees of a loop that calls what `run` is given."""
    heartbeat = Heartbeat(tmp_path / "beat")
    heartbeat.phase = Phase.COMPUTING
    beats: list[RankBeat] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: beats.append(heartbeat.look(1)))
        thread.start()
        thread.join()

    run(look)
    return beats[0]


def test_the_line_is_of_the_users_code(tmp_path: Path) -> None:
    def my_loop(look: Callable[[], None]) -> None:
        max([1], key=lambda _: look() or 0)

    beat = looked_from(tmp_path, my_loop)
    assert beat.place.startswith("line ")
    assert beat.phase is Phase.COMPUTING


def test_a_backward_pass_may_wait_for_other_ranks(tmp_path: Path) -> None:
    def my_loop(look: Callable[[], None]) -> None:
        value = torch.ones(1, requires_grad=True)
        value.register_hook(lambda _: look())
        value.sum().backward()

    assert looked_from(tmp_path, my_loop).phase is Phase.WAITING


def test_there_is_no_beat_before_the_first(tmp_path: Path) -> None:
    assert read_beat(tmp_path / "beat") is None
