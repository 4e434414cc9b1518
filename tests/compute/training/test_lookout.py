"""Ranks that are stopped, one of them and all together."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_aistack import Cluster, train
from jupyter_aistack.compute.training.heartbeat import read_beat
from jupyter_aistack.exceptions import TrainingError
from tests.fakes.waiting import wait_until

LIMIT = 3.0


def stop_in_step_3(ctx: Any) -> int:
    import torch

    model = ctx.wrap(torch.nn.Linear(1, 1))
    step = (ctx.restore(model) or {"step": 0})["step"]
    while step < 6:
        step += 1
        ctx.mean(1.0)
        ctx.checkpoint(model, step=step)
        ctx.mean(1.0)
        if (ctx.attempt, ctx.rank, step) == (0, 1, 3):
            # Its heart has to beat once inside the loop, to tell where that was.
            while "stop_in_step_3" not in read_beat(ctx._heartbeat._file).place:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGSTOP)
        ctx.log(step)
    return step


def test_a_stopped_rank_is_named_with_where_it_was_and_the_checkpoint_stays(
    cluster: Cluster, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    with pytest.raises(TrainingError) as caught:
        train(stop_in_step_3, workers=cluster, stall_timeout=LIMIT, checkpoint_dir=kept)
    error = caught.value
    assert error.message.startswith("rank 1 has stalled: for ")
    assert re.search(r"\(line \d+ of stop_in_step_3\), as process", error.message)
    assert "which is stopped (SIGSTOP); the last checkpoint is kept in" in error.message
    assert "Traceback" not in error.message
    assert (error.facts["rank"], error.facts["host"]) == (1, socket.gethostname())
    assert not psutil.pid_exists(error.facts["pid"])
    assert [file.name for file in kept.iterdir()] == ["checkpoint.pt"]


def test_a_stopped_rank_is_started_again_from_the_checkpoint(cluster: Cluster) -> None:
    result = train(stop_in_step_3, workers=cluster, stall_timeout=LIMIT, max_restarts=1)
    assert (result.results, result.restarts) == ([6, 6], 1)
    assert [point["step"] for point in result.metrics][-3:] == [4, 5, 6]


def test_ranks_that_are_all_stopped_for_longer_than_that_go_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    limit = 1.5

    def loop(ctx: Any) -> int:
        ctx.log(pid=os.getpid(), every_rank=True)
        while ctx.mean(float(ctx.config["may_end"].exists())) < 1.0:
            pass
        return ctx.attempt

    pids: list[int] = []

    def suspend() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        resumed_at = time.monotonic() + 3 * limit
        wait_until(lambda: time.monotonic() >= resumed_at)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        may_end.touch()

    def note(point: dict[str, Any]) -> None:
        pids.append(int(point["metrics"]["pid"]))
        if len(pids) == 2:
            suspension.start()

    may_end = tmp_path / "may end"
    suspension = threading.Thread(target=suspend)
    result = train(
        loop,
        workers=cluster,
        stall_timeout=limit,
        on_metrics=note,
        config={"may_end": may_end},
    )
    suspension.join()
    assert (result.results, result.restarts) == ([0, 0], 0)


def test_ranks_that_wait_for_one_another_are_told_where(cluster: Cluster) -> None:
    def uneven(ctx: Any) -> None:
        for _ in range(3 + ctx.rank):
            ctx.mean(1.0)

    with pytest.raises(TrainingError) as caught:
        train(uneven, workers=cluster, stall_timeout=LIMIT)
    assert caught.value.message.startswith("all ranks have waited for one another for")
    assert "rank 0 in epoch 0 after batch 0, past its loop" in caught.value.message
    assert ", in a collective (line " in caught.value.message
