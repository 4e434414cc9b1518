"""Which of several errors a failed attempt raises, and what its message says."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from jupyter_aistack.compute.data.shards import Shard
from jupyter_aistack.compute.training.failures import (
    AttemptOutcome,
    error_of_death,
    error_of_loop,
)
from jupyter_aistack.compute.training.heartbeat import Phase, RankBeat
from jupyter_aistack.compute.training.job import RankError, TrainingJob, TrainingRun
from jupyter_aistack.compute.training.stalls import Stall


def jobs(folder: Path) -> list[TrainingJob]:
    run = TrainingRun(
        folder=folder,
        workers=(0, 1),
        shards=(Shard(), Shard()),
        loop=b"",
        config=b"",
        epochs=1,
        seed=0,
        backend="gloo",
        backend_reason="it was requested",
        on_gpu=False,
        checkpoints=folder,
        stall_timeout=None,
        max_restarts=0,
    )
    return [run.job(rank, 0, folder) for rank in range(2)]


def write_error(job: TrainingJob, kind: str, failed_at: float) -> None:
    error = RankError(
        type=kind, message="no", traceback="in loop\n", failed_at=failed_at
    )
    job.error_file.write_text(error.to_json())


@pytest.mark.parametrize(
    ("code", "was_stopped", "is_success", "has_died"),
    [
        (0, False, True, False),
        (0, True, False, False),
        (1, False, False, False),
        (-9, False, False, True),
        (-9, True, False, False),
        (None, False, False, True),
    ],
)
def test_an_outcome_is_a_success_a_death_or_neither(
    code: int | None, was_stopped: bool, is_success: bool, has_died: bool
) -> None:
    outcome = AttemptOutcome(rank=0, code=code, was_stopped=was_stopped)
    assert (outcome.is_success, outcome.has_died) == (is_success, has_died)


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, "0"), (3, "3"), (137, r"137 \(128 \+ SIGKILL\)"), (163, r".* signal 35\)")],
)
def test_a_rank_that_left_before_its_loop_returned_is_a_failure(
    code: int, status: str, tmp_path: Path
) -> None:
    first, second = jobs(tmp_path)
    write_error(first, "RuntimeError", failed_at=1.0)  # it lost the other
    lost = AttemptOutcome(rank=0, code=1, has_result=False)
    left = AttemptOutcome(rank=1, code=code, has_result=False)
    assert not left.is_success
    error = error_of_loop([first, second], [lost, left])
    assert re.match(
        f"rank 1 ended its process with exit status {status} before its loop returned",
        error.message,
    )
    assert error.facts["rank"] == 1


def test_a_loop_that_calls_exit_is_told_as_that(tmp_path: Path) -> None:
    first, second = jobs(tmp_path)
    write_error(second, "SystemExit", failed_at=1.0)
    error = error_of_loop([first, second], [])
    assert error.message.startswith(
        "rank 1 left with sys.exit(no) before its loop returned\n\nin loop"
    )


def test_the_error_is_of_the_rank_that_failed_first(tmp_path: Path) -> None:
    first, second = jobs(tmp_path)
    write_error(first, "ConnectionError", failed_at=2.0)
    write_error(second, "ValueError", failed_at=1.0)
    error = error_of_loop([first, second], [])
    assert error.message == "rank 1 failed: ValueError: no\n\nin loop\n"
    assert error.facts["rank"] == 1
    assert error.facts["type"] == "ValueError"


def test_ranks_without_an_error_are_listed_with_their_exit_status(
    tmp_path: Path,
) -> None:
    outcomes = [AttemptOutcome(rank=0, code=1), AttemptOutcome(rank=1, code=3)]
    error = error_of_loop(jobs(tmp_path), outcomes)
    assert error.message.startswith("ranks exited without an error message (rank 0: ")
    assert "rank 1: exit status 3" in error.message


def test_a_death_names_its_signal_and_ends_with_the_log(tmp_path: Path) -> None:
    job = jobs(tmp_path)[1]
    job.log_file.write_text("".join(f"line {number}\n" for number in range(30)))
    died = AttemptOutcome(rank=1, code=-signal.SIGKILL)
    error = error_of_death(job, died, restarts=2)
    assert error.message.startswith(
        "rank 1 was ended by SIGKILL (exit status 137; out of memory, perhaps), and had been started again 2 times"
    )
    assert error.message.endswith("line 29\n")
    assert "line 9\n" not in error.message
    assert error.facts["rank"] == 1


def test_a_stall_names_rank_place_process_and_checkpoint(tmp_path: Path) -> None:
    beat = RankBeat(
        number=9,
        host="lab",
        pid=4242,
        phase=Phase.COMPUTING,
        progress=3,
        epoch=2,
        batch=17,
        place="line 12 of fit",
    )
    (tmp_path / "checkpoint.pt").touch()
    stall = Stall(rank=1, seconds=61.2, beats={0: None, 1: beat}, state="D")
    outcome = AttemptOutcome(rank=1, code=None, stall=stall)
    assert outcome.has_died
    error = error_of_death(jobs(tmp_path)[1], outcome, restarts=1)
    assert error.message == (
        "rank 1 has stalled: for 61 s it has neither gone on nor computed while the "
        "other ranks waited for it; it was last seen in epoch 2 after batch 17, in its "
        "loop (line 12 of fit), as process 4242 on lab, which waits for a disk or a "
        f"mount; the last checkpoint is kept in {tmp_path}/checkpoint.pt. It had been "
        "started again 1 times; allow more with max_restarts, or a longer wait with "
        "stall_timeout"
    )


def test_a_lost_worker_is_named_as_that(tmp_path: Path) -> None:
    job = jobs(tmp_path)[0]
    died = AttemptOutcome(rank=0, code=None, note=" (KilledWorker)")
    error = error_of_death(job, died, restarts=0)
    assert error.message.startswith("rank 0 lost its worker, ")
    assert error.message.endswith("max_restarts (KilledWorker)")
