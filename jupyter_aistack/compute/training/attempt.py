"""One attempt of a training run: all ranks once, from start to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import TrainingError
from jupyter_aistack.system.files import write_atomic
from jupyter_aistack.system.interrupts import DeferredInterrupts

from .failures import AttemptOutcome, error_of_deadlock
from .job import RankResult, TrainingJob, TrainingRun
from .log_tail import LogTail
from .lookout import Lookout
from .rank_task import run_rank
from .serialize import load_value

if TYPE_CHECKING:
    from distributed import Client, Future

Metrics = dict[str, Any]
GRACE_SECONDS = 5.0
"""How long ranks may take to end by themselves when the run is broken off."""

KILL_SECONDS = 4.0
"""How long the end of a rank that was killed may take to arrive; its worker waits half
as long.
"""

POLL_SECONDS = 0.05
DELIVER_SECONDS = 0.2
WORKERS_SECONDS = 1.0
"""How often the scheduler is asked which workers it still has."""

RESTART_SECONDS = 60.0


class Attempt:
    """All ranks once, from start to end.

    Args:
        client: Dask's.
        run: what is fixed for all attempts.
        number: 0, and one more after each restart.
        on_points: called with the points that ranks have logged.
    """

    def __init__(
        self,
        client: Client,
        run: TrainingRun,
        number: int,
        on_points: Callable[[list[Metrics]], None],
    ) -> None:
        self.client = client
        self.training_run = run
        self.number = number
        self._on_points = on_points
        folder = run.folder / f"attempt-{number}"
        folder.mkdir()
        self.jobs = [run.job(rank, number, folder) for rank in range(run.world_size)]
        self._stop_file = folder / "stop"
        self._metrics = [LogTail(job.metrics_file) for job in self.jobs]
        self._prints = [LogTail(job.out_file) for job in self.jobs]
        self._lookout = Lookout(self.jobs, run.stall_timeout)
        self._delivered_at = time.monotonic()
        self._workers_asked_at = time.monotonic()
        self._interrupts = 0

    def run(self, deadline: float | None) -> list[AttemptOutcome]:
        """How every rank ended, by rank.

        Raises:
            TrainingError: `deadline`, on the monotonic clock, has passed, a worker did
                not come back, or the ranks wait for one another.
            KeyboardInterrupt: after all ranks have been stopped; at a second interrupt
                they get no time to save.
        """
        addresses = self._await_workers()
        with DeferredInterrupts(self._note_interrupt):
            return self._run_on(addresses, deadline)

    def _note_interrupt(self) -> None:
        self._interrupts += 1

    def _run_on(
        self, addresses: list[str], deadline: float | None
    ) -> list[AttemptOutcome]:
        futures: list[Future] = []
        outcomes: dict[int, AttemptOutcome] = {}
        try:
            for rank, address in enumerate(addresses):
                futures.append(self._submit(rank, address))
            for ended in self._ends(futures, addresses, outcomes):
                if ended is not None and not ended.is_success:
                    # The others would wait for it.
                    self._stop_ranks(0)
                self._check(deadline)
        except BaseException:
            self._stop_ranks(GRACE_SECONDS)
            raise
        finally:
            # A rank that stalled is being killed still; a lost worker says no more.
            self._await_end(
                [
                    future
                    for rank, future in enumerate(futures)
                    if rank not in outcomes or not outcomes[rank].has_lost_worker
                ]
            )
            self.client.cancel([future for future in futures if not future.done()])
        self._deliver()
        return [outcomes[rank] for rank in range(self.training_run.world_size)]

    def _check(self, deadline: float | None) -> None:
        if self._interrupts:
            raise KeyboardInterrupt
        if deadline is not None and time.monotonic() >= deadline:
            raise TrainingError(
                "the run took longer than the time given; allow more with timeout"
            )

    def results(self) -> list[RankResult]:
        """What the ranks left, on the CPU.

        Raises:
            TrainingError: a result cannot be read in this process.
        """
        return [
            load_value(job.result_file, "cpu", name=f"the result of rank {job.rank}")
            for job in self.jobs
        ]

    def _ends(
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
            lost = self._lost_workers(addresses)
            for rank, future in enumerate(futures):
                has_ended = future.done() or addresses[rank] in lost
                if has_ended and rank not in outcomes:
                    outcomes[rank] = _outcome(self.jobs[rank], future)
                    yield outcomes[rank]
            stalled = self._stalled(outcomes)
            if stalled is not None:
                outcomes[stalled.rank] = stalled
            yield stalled
            time.sleep(POLL_SECONDS)

    def _stalled(self, outcomes: Mapping[int, AttemptOutcome]) -> AttemptOutcome | None:
        """A rank that holds the others up.

        Raises:
            TrainingError: all wait for one another.
        """
        stall = self._lookout.look(
            [job for job in self.jobs if job.rank not in outcomes]
        )
        if stall is None:
            return None
        if stall.rank is None:
            raise error_of_deadlock(stall)
        return AttemptOutcome(rank=stall.rank, code=None, stall=stall)

    def _lost_workers(self, addresses: list[str]) -> set[str]:
        """Workers that the scheduler has no more; it is asked once a second."""
        if time.monotonic() - self._workers_asked_at < WORKERS_SECONDS:
            return set()
        self._workers_asked_at = time.monotonic()
        return set(addresses) - set(self.client.scheduler_info()["workers"])

    def _await_workers(self) -> list[str]:
        """Addresses of the workers by rank; waits for those being restarted."""
        deadline = time.monotonic() + RESTART_SECONDS
        names = self.training_run.workers
        while True:
            addresses = self._addresses()
            missing = [str(name) for name in names if name not in addresses]
            if not missing:
                return [addresses[name] for name in names]
            if time.monotonic() >= deadline:
                raise TrainingError(
                    f"worker {', '.join(missing)} did not come back within {RESTART_SECONDS:g} s; "
                    "look at the cluster, and scale it if a worker is gone"
                )
            time.sleep(POLL_SECONDS)

    def _addresses(self) -> Mapping[object, str]:
        workers = self.client.scheduler_info()["workers"]
        return {worker["name"]: address for address, worker in workers.items()}

    def _submit(self, rank: int, address: str) -> Future:
        return self.client.submit(
            run_rank,
            self.jobs[rank],
            key=f"aistack-rank-{self.training_run.folder.name}-{self.number}-{rank}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            priority=100,
        )

    def _stop_ranks(self, grace_seconds: float) -> None:
        write_atomic(self._stop_file, str(grace_seconds))

    def _await_end(self, futures: list[Future]) -> None:
        has_hurried = False
        deadline = time.monotonic() + GRACE_SECONDS + KILL_SECONDS
        while time.monotonic() < deadline:
            if all(future.done() for future in futures):
                return
            if self._interrupts > 1 and not has_hurried:
                has_hurried = True
                self._stop_ranks(0)
            time.sleep(POLL_SECONDS)

    def _deliver(self, at_least_seconds: float = 0.0) -> None:
        """Hand on what the ranks have logged and printed, if the last time was at least
        that long ago.
        """
        if time.monotonic() - self._delivered_at < at_least_seconds:
            return
        self._delivered_at = time.monotonic()
        for rank, tail in enumerate(self._prints):
            for line in tail.lines():
                print(line if rank == 0 else f"[rank {rank}] {line}", flush=True)
        for tail in self._metrics:
            self._on_points(tail.records())


def _outcome(job: TrainingJob, future: Future) -> AttemptOutcome:
    """How a rank ended, from its future; a future not done has lost its worker."""
    if future.status == "finished":
        ended = future.result()
        return AttemptOutcome(
            rank=job.rank,
            code=ended.code,
            was_stopped=ended.was_stopped,
            has_result=job.result_file.exists(),
        )
    if future.status == "error":
        error = future.exception()
        is_worker_lost = type(error).__name__ == "KilledWorker"
        code = None if is_worker_lost else 1
        return AttemptOutcome(rank=job.rank, code=code, note=f" ({error})")
    return AttemptOutcome(rank=job.rank, code=None)
