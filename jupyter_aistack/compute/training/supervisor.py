"""Starts the ranks of a run, listens to them, and decides what a failure means. Runs in
the notebook.

Dask neither restarts the right rank nor stops a running one: a task pinned to a worker
that died waits for ever, and cancelling a future leaves its thread at work. So ranks
are processes, told to stop by a file, and started anew as a whole.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.notices import forget_notice, on_notice
from jupyter_aistack.compute.data.shards import Shard
from jupyter_aistack.exceptions import TrainingError
from jupyter_aistack.system.files import write_atomic

from .log_tail import LogTail
from .rank_task import run_rank

if TYPE_CHECKING:
    from distributed import Client, Future

Metrics = dict[str, Any]
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05
DELIVER_SECONDS = 0.2
LOOK_SECONDS = 1.0
RESTART_SECONDS = 60.0
NOTICE = "notice"


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """All that is fixed for a run.

    Attributes:
        folder: where notebook and ranks meet.
        workers: names of the Dask workers, in order of rank. Names stay when a worker
            is restarted, addresses do not.
        shards: what each rank reads.
        loop, config: pickled.
        epochs, seed, backend: as in the context.
        on_gpu: whether the slices are of GPUs.
        checkpoints: where they are kept.
    """

    folder: Path
    workers: tuple[object, ...]
    shards: tuple[Shard, ...]
    loop: bytes
    config: bytes
    epochs: int
    seed: int
    backend: str
    on_gpu: bool
    checkpoints: Path

    @property
    def world_size(self) -> int:
        return len(self.workers)


@dataclass(frozen=True, kw_only=True)
class AttemptOutcome:
    """How a rank ended: its exit status (negative for a signal, None when its worker is
    gone), and on whose account.
    """

    rank: int
    code: int | None
    was_stopped: bool = False
    note: str = ""

    @property
    def has_died(self) -> bool:
        """Ended by neither the loop nor us, so that starting again may help."""
        return not self.was_stopped and (self.code is None or self.code < 0)


class Supervisor:
    """Carries a run through its attempts.

    Attributes:
        history: every point logged so far.
        restarts: how often the ranks were started again.
    """

    def __init__(
        self,
        client: Client,
        run: TrainingRun,
        *,
        on_metrics: Callable[[Metrics], None] | None,
        timeout: float | None,
        max_restarts: int,
    ) -> None:
        self.client = client
        self.spec = run
        self.max_restarts = max_restarts
        self.history: list[Metrics] = []
        self.restarts = 0
        self._on_metrics = on_metrics
        self._deadline = None if timeout is None else time.monotonic() + timeout
        (run.folder / "loop").write_bytes(run.loop)
        (run.folder / "config").write_bytes(run.config)

    def run(self) -> list[dict[str, Any]]:
        """What each rank left: ``value``, ``rows``, ``seconds``. Raises
        `TrainingError`.
        """
        on_notice(self._pass_on)
        try:
            return self._run()
        finally:
            forget_notice(self._pass_on)

    def _pass_on(self, notice: dict[str, Any]) -> None:
        """Tell the ranks that a slice will be taken back, so that they keep a
        checkpoint.
        """
        write_atomic(self.spec.folder / NOTICE, f"{notice['lease_id']} {notice['at']}")

    def _run(self) -> list[dict[str, Any]]:
        while True:
            attempt = Attempt(self.client, self.spec, self.restarts, self._listen)
            outcomes = attempt.run(self._deadline)
            if all(
                outcome.code == 0 and not outcome.was_stopped for outcome in outcomes
            ):
                return attempt.results()
            died = next((outcome for outcome in outcomes if outcome.has_died), None)
            if died is None:
                raise attempt.error_of_first(outcomes)
            if self.restarts >= self.max_restarts:
                raise attempt.error_of_death(died, self.max_restarts)
            self.restarts += 1

    def _listen(self, points: list[Metrics]) -> None:
        for point in points:
            self.history.append(point)
            if self._on_metrics is not None:
                self._on_metrics(point)


class Attempt:
    """All ranks once, from start to end."""

    def __init__(
        self,
        client: Client,
        run: TrainingRun,
        number: int,
        listen: Callable[[list[Metrics]], None],
    ) -> None:
        self.client = client
        self.spec = run
        self.number = number
        self._listen = listen
        self.folder = run.folder / f"attempt-{number}"
        self.folder.mkdir()
        ranks = range(run.world_size)
        self._metrics = [LogTail(self._file(rank, "metrics")) for rank in ranks]
        self._prints = [LogTail(self._file(rank, "out")) for rank in ranks]
        self._delivered_at = self._looked_at = time.monotonic()

    def _file(self, rank: int, name: str) -> Path:
        return self.folder / f"rank-{rank}.{name}"

    # -- running -----------------------------------------------------------------------

    def run(self, deadline: float | None) -> list[AttemptOutcome]:
        """How every rank ended, by rank."""
        addresses = self._addresses()
        futures = [
            self._submit(rank, address) for rank, address in enumerate(addresses)
        ]
        outcomes: dict[int, AttemptOutcome] = {}
        try:
            for ended in self._watch(futures, addresses, outcomes):
                if ended is not None and (ended.code != 0 or ended.was_stopped):
                    self._stop(
                        0
                    )  # the others would wait for it until their group times out
                if deadline is not None and time.monotonic() >= deadline:
                    raise TrainingError("the run took longer than the time given")
        except BaseException:
            self._stop(GRACE_SECONDS)
            self._await_end(futures)
            raise
        finally:
            self.client.cancel([future for future in futures if not future.done()])
        self._deliver()
        return [outcomes[rank] for rank in range(self.spec.world_size)]

    def _watch(
        self,
        futures: list[Future],
        addresses: list[str],
        outcomes: dict[int, AttemptOutcome],
    ) -> Iterator[AttemptOutcome | None]:
        """Each end as it comes, and None at least every 50 ms in between, until all
        ranks have ended.
        """
        while len(outcomes) < len(futures):
            self._deliver(at_least_seconds=DELIVER_SECONDS)
            gone = self._gone(addresses)
            for rank, future in enumerate(futures):
                if rank not in outcomes and (future.done() or addresses[rank] in gone):
                    outcomes[rank] = _outcome(rank, future)
                    yield outcomes[rank]
            yield None
            time.sleep(POLL_SECONDS)

    def _gone(self, addresses: list[str]) -> set[str]:
        """Workers that are no longer there; looked up once a second."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return set()
        self._looked_at = time.monotonic()
        return set(addresses) - set(self.client.scheduler_info()["workers"])

    def _addresses(self) -> list[str]:
        """Where the workers are now; waits for those that are being restarted."""
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            workers = self.client.scheduler_info()["workers"]
            by_name = {worker["name"]: address for address, worker in workers.items()}
            if all(name in by_name for name in self.spec.workers):
                return [by_name[name] for name in self.spec.workers]
            if time.monotonic() >= deadline:
                missing = [
                    str(name) for name in self.spec.workers if name not in by_name
                ]
                raise TrainingError(
                    f"worker {', '.join(missing)} did not come back within {RESTART_SECONDS:g} s"
                )
            time.sleep(POLL_SECONDS)

    def _submit(self, rank: int, address: str) -> Future:
        return self.client.submit(
            run_rank,
            self._job(rank),
            key=f"aistack-rank-{self.spec.folder.name}-{self.number}-{rank}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            priority=100,
        )

    def _job(self, rank: int) -> dict[str, Any]:
        run = self.spec
        return {
            "rank": rank,
            "world_size": run.world_size,
            "attempt": self.number,
            "epochs": run.epochs,
            "seed": run.seed,
            "backend": run.backend,
            "on_gpu": run.on_gpu,
            "shard": run.shards[rank].to_dict(),
            "loop_file": str(run.folder / "loop"),
            "config_file": str(run.folder / "config"),
            "checkpoint_folder": str(run.checkpoints),
            "notice_file": str(run.folder / NOTICE),
            "port_file": str(self.folder / "port"),
            "stop_file": str(self.folder / "stop"),
            **{
                f"{name}_file": str(self._file(rank, name))
                for name in ("metrics", "out", "log", "error", "result")
            },
        }

    def _stop(self, grace_seconds: float) -> None:
        write_atomic(self.folder / "stop", str(grace_seconds))

    def _await_end(self, futures: list[Future]) -> None:
        deadline = time.monotonic() + GRACE_SECONDS + 2
        while (
            not all(future.done() for future in futures) and time.monotonic() < deadline
        ):
            time.sleep(POLL_SECONDS)

    def _deliver(self, at_least_seconds: float = 0.0) -> None:
        """Hand on what the ranks have logged and printed."""
        if time.monotonic() - self._delivered_at < at_least_seconds:
            return
        self._delivered_at = time.monotonic()
        for rank, tail in enumerate(self._prints):
            for line in tail.lines():
                print(line if rank == 0 else f"[rank {rank}] {line}", flush=True)
        for tail in self._metrics:
            self._listen(tail.records())

    # -- judging -----------------------------------------------------------------------

    def results(self) -> list[dict[str, Any]]:
        """What the ranks left, on the CPU."""
        import torch

        files = [self._file(rank, "result") for rank in range(self.spec.world_size)]
        return [
            torch.load(file, map_location="cpu", weights_only=False) for file in files
        ]

    def error_of_first(self, outcomes: list[AttemptOutcome]) -> TrainingError:
        """The error of the rank that failed first: the others only lost touch with
        it.
        """
        import json

        errors = {}
        for outcome in outcomes:
            file = self._file(outcome.rank, "error")
            if file.exists():
                errors[outcome.rank] = json.loads(file.read_text())
        if not errors:
            last = "; ".join(
                f"rank {outcome.rank}: exit status {outcome.code} {outcome.note}"
                for outcome in outcomes
            )
            return TrainingError(f"the ranks ended without a word ({last})")
        rank = min(errors, key=lambda number: errors[number]["failed_at"])
        error = errors[rank]
        return TrainingError(
            f"rank {rank} failed: {error['type']}: {error['message']}\n\n{error['traceback']}",
            rank=rank,
            type=error["type"],
            traceback=error["traceback"],
        )

    def error_of_death(self, died: AttemptOutcome, restarts: int) -> TrainingError:
        """The error of a rank that neither returned nor raised."""
        how = (
            "lost its worker"
            if died.code is None
            else f"was ended by {signal.Signals(-died.code).name}"
        )
        hint = " (out of memory, perhaps)" if died.code == -signal.SIGKILL else ""
        log = self._file(died.rank, "log")
        said = (
            "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
            if log.exists()
            else ""
        )
        return TrainingError(
            f"rank {died.rank} {how}{hint}, and had been started again {restarts} times; "
            f"allow more with max_restarts{died.note}"
            + (f"\n\n{said}" if said else ""),
            rank=died.rank,
        )


def _outcome(rank: int, future: Future) -> AttemptOutcome:
    """How a rank ended, from its future; one that is not done has lost its worker."""
    if future.status == "finished":
        answer = future.result()
        return AttemptOutcome(
            rank=rank, code=answer["code"], was_stopped=answer["was_stopped"]
        )
    if future.status == "error":
        error = future.exception()
        is_loss = type(error).__name__ == "KilledWorker"
        return AttemptOutcome(
            rank=rank, code=None if is_loss else 1, note=f" ({error})"
        )
    return AttemptOutcome(rank=rank, code=None)
