"""What notebook, Dask workers and ranks tell one another about a training run.

A rank is started by a fork server that has no connection to the notebook, so all of it
goes through files; each record here is written by one side and read by another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jupyter_aistack.compute.data.shards import Shard

from .run_folder import OWNER_FILE


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that one rank has to know, in one attempt.

    Attributes:
        rank: 0 to ``world_size - 1``.
        world_size: how many ranks there are.
        attempt: 0, and one more after each restart.
        epochs, seed, backend: as in the context.
        on_gpu: whether the rank computes on a GPU.
        shard: the rows it reads.
        loop_file, config_file: the pickled loop and its configuration; read.
        checkpoint_folder: where the checkpoint is kept; read and written.
        notice_file: says that a slice will be reclaimed soon; read.
        stop_file: once it exists, holds the seconds the rank has left; read by its
            worker.
        owner_file: locked as long as the notebook's process lives; read by its worker.
        store_file: the key-value store by which ranks find one another; read and
            written.
        beat_file: where the rank was when its heart beat last; written.
        metrics_file, out_file, log_file: logged points, prints and the process's own
            errors; written.
        error_file, result_file: how the loop ended; one of them is written.
    """

    rank: int
    world_size: int
    attempt: int
    epochs: int
    seed: int
    backend: str
    on_gpu: bool
    shard: Shard
    loop_file: Path
    config_file: Path
    checkpoint_folder: Path
    notice_file: Path
    stop_file: Path
    owner_file: Path
    store_file: Path
    beat_file: Path
    metrics_file: Path
    out_file: Path
    log_file: Path
    error_file: Path
    result_file: Path

    @property
    def checkpoint_file(self) -> Path:
        """The checkpoint, once there is one."""
        return self.checkpoint_folder / "checkpoint.pt"

    @property
    def outlives_run(self) -> bool:
        """Whether the checkpoint is kept when the run has ended."""
        return self.checkpoint_folder.parent != self.loop_file.parent

    @property
    def job_file(self) -> Path:
        """Where the job itself is written for its rank."""
        return self.error_file.with_suffix(".job")

    def to_json(self) -> str:
        """The job as one line of JSON."""
        values = asdict(self)
        values["shard"] = self.shard.to_dict()
        for name in _PATHS:
            values[name] = str(values[name])
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> TrainingJob:
        """The job that :meth:`to_json` has written."""
        values = json.loads(text)
        values["shard"] = Shard.from_dict(values["shard"])
        for name in _PATHS:
            values[name] = Path(values[name])
        return cls(**values)


_PATHS = [
    field.name
    for field in fields(TrainingJob)
    if field.name.endswith(("_file", "_folder"))
]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """All that is fixed for a run, whatever its number of attempts.

    Attributes:
        folder: where notebook and ranks meet.
        workers: names of the Dask workers, in order of rank. Names stay when a worker
            is restarted, addresses do not.
        shards: what each rank reads.
        loop, config: pickled.
        epochs, seed, backend: as in the context.
        backend_reason: why that backend.
        on_gpu: whether the slices are of GPUs.
        checkpoints: where they are kept.
        stall_timeout: seconds the other ranks may wait for one that does nothing; None
            for ever.
        max_restarts: how often all ranks may be started again.
    """

    folder: Path
    workers: tuple[object, ...]
    shards: tuple[Shard, ...]
    loop: bytes
    config: bytes
    epochs: int
    seed: int
    backend: str
    backend_reason: str
    on_gpu: bool
    checkpoints: Path
    stall_timeout: float | None
    max_restarts: int

    @property
    def world_size(self) -> int:
        return len(self.workers)

    @property
    def notice_file(self) -> Path:
        """Where the ranks of every attempt look for notices."""
        return self.folder / "notice"

    def write_inputs(self) -> None:
        """Write the loop and its configuration for the ranks."""
        (self.folder / "loop").write_bytes(self.loop)
        (self.folder / "config").write_bytes(self.config)

    def job(self, rank: int, attempt: int, folder: Path) -> TrainingJob:
        """What `rank` does in `attempt`, with the attempt's files in `folder`."""
        return TrainingJob(
            rank=rank,
            world_size=self.world_size,
            attempt=attempt,
            epochs=self.epochs,
            seed=self.seed,
            backend=self.backend,
            on_gpu=self.on_gpu,
            shard=self.shards[rank],
            loop_file=self.folder / "loop",
            config_file=self.folder / "config",
            checkpoint_folder=self.checkpoints,
            notice_file=self.notice_file,
            stop_file=folder / "stop",
            owner_file=self.folder / OWNER_FILE,
            store_file=folder / "store",
            beat_file=folder / f"rank-{rank}.beat",
            metrics_file=folder / f"rank-{rank}.metrics",
            out_file=folder / f"rank-{rank}.out",
            log_file=folder / f"rank-{rank}.log",
            error_file=folder / f"rank-{rank}.error",
            result_file=folder / f"rank-{rank}.result",
        )


@dataclass(frozen=True, kw_only=True)
class ForkRequest:
    """What a worker asks of its fork server: one rank.

    Attributes:
        job_file: the rank's :class:`TrainingJob`; its pid and its exit status are
            written beside it.
        out_file, log_file: where its prints and its errors go.
        python_path: where it finds modules, as the worker does.
    """

    job_file: Path
    out_file: Path
    log_file: Path
    python_path: Sequence[str]

    def to_json(self) -> str:
        """The request as one line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str | bytes) -> ForkRequest:
        """The request that :meth:`to_json` has written."""
        values = json.loads(text)
        for name in ("job_file", "out_file", "log_file"):
            values[name] = Path(values[name])
        return cls(**values)


def pid_file(job_file: Path) -> Path:
    """Where the fork server writes the pid of a job's rank."""
    return job_file.with_suffix(".pid")


def exit_file(job_file: Path) -> Path:
    """Where the fork server writes the exit status of a job's rank."""
    return job_file.with_suffix(".exit")


@dataclass(frozen=True, kw_only=True)
class RankExit:
    """How a rank's process ended.

    Attributes:
        code: its exit status, negative for a signal.
        was_stopped: whether it had been asked to stop.
    """

    code: int | None
    was_stopped: bool


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """What a rank whose loop returned has left.

    Attributes:
        value: what the loop returned.
        rows: rows it was given.
        seconds: how long the loop took.
    """

    value: Any
    rows: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RankError:
    """What a rank whose loop raised has left.

    Attributes:
        type: class of the exception.
        message: its text.
        traceback: from the loop downwards.
        failed_at: seconds since the epoch.
    """

    type: str
    message: str
    traceback: str
    failed_at: float

    def to_json(self) -> str:
        """The error as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RankError:
        """The error that :meth:`to_json` has written."""
        return cls(**json.loads(text))
