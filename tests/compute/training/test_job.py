"""What notebook, workers and ranks tell one another survives the way there."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.compute.data.shards import Shard, ShardPart
from jupyter_aistack.compute.training.job import (
    ForkRequest,
    RankError,
    TrainingJob,
    TrainingRun,
)

SHARDS = (
    Shard(parts=(ShardPart(start=0, stop=3, path="größe.parquet", group=1),)),
    Shard(parts=(ShardPart(start=3, stop=6),), arrays={"x": "array-0.npy"}),
)


def run(folder: Path) -> TrainingRun:
    return TrainingRun(
        folder=folder,
        workers=(0, "one"),
        shards=SHARDS,
        loop=b"loop",
        config=b"config",
        epochs=3,
        seed=7,
        backend="gloo",
        backend_reason="it was requested",
        on_gpu=False,
        checkpoints=folder / "checkpoints",
        stall_timeout=2.5,
        max_restarts=1,
    )


def test_a_job_is_the_same_after_json(tmp_path: Path) -> None:
    for rank in range(2):
        job = run(tmp_path).job(rank, 1, tmp_path / "attempt-1")
        text = job.to_json()
        assert "\n" not in text
        assert TrainingJob.from_json(text) == job


def test_jobs_of_a_run_differ_in_rank_shard_and_own_files(tmp_path: Path) -> None:
    first, second = (run(tmp_path).job(rank, 0, tmp_path) for rank in range(2))
    assert (first.rank, second.rank) == (0, 1)
    assert (first.shard, second.shard) == SHARDS
    own = ("beat", "metrics", "out", "log", "error", "result", "job")
    for name in own:
        assert getattr(first, f"{name}_file") != getattr(second, f"{name}_file")
    for name in ("loop", "config", "notice", "stop", "store", "owner"):
        assert getattr(first, f"{name}_file") == getattr(second, f"{name}_file")


def test_the_inputs_lie_where_the_jobs_say(tmp_path: Path) -> None:
    run(tmp_path).write_inputs()
    job = run(tmp_path).job(0, 0, tmp_path)
    assert job.loop_file.read_bytes() == b"loop"
    assert job.config_file.read_bytes() == b"config"


def test_requests_and_errors_are_the_same_after_json(tmp_path: Path) -> None:
    request = ForkRequest(
        job_file=tmp_path / "job",
        out_file=tmp_path / "out",
        log_file=tmp_path / "log",
        python_path=["", "/opt"],
    )
    assert ForkRequest.from_json(request.to_json()) == request
    error = RankError(
        type="ValueError", message="größer\n", traceback="...\n", failed_at=1.5
    )
    assert RankError.from_json(error.to_json()) == error
