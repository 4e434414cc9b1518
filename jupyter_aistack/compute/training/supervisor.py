"""Carries a training run through its attempts, and decides what a failure means. Runs in
the notebook.

Dask neither restarts the right rank nor stops a running rank: a task pinned to a worker
that died waits for ever, and cancelling a future leaves its thread at work. So ranks
are processes, asked to stop by a file, and started anew as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.notices import forget_notice, on_notice
from jupyter_aistack.system.files import write_atomic

from .attempt import Attempt, Metrics
from .failures import error_of_death, error_of_loop
from .job import RankResult, TrainingRun

if TYPE_CHECKING:
    from distributed import Client


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
    ) -> None:
        self.client = client
        self.training_run = run
        self.history: list[Metrics] = []
        self.restarts = 0
        self._on_metrics = on_metrics
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def run(self) -> list[RankResult]:
        """What each rank left, by rank.

        Raises:
            TrainingError: a rank failed and is not started again, or time is up.
        """
        self.training_run.write_inputs()
        try:
            on_notice(self._forward_notice)
            return self._run_attempts()
        finally:
            forget_notice(self._forward_notice)

    def _forward_notice(self, notice: dict[str, Any]) -> None:
        """Tell the ranks that a slice will be reclaimed, so that they write a
        checkpoint.
        """
        text = f"{notice['lease_id']} {notice['at']}"
        write_atomic(self.training_run.notice_file, text)

    def _run_attempts(self) -> list[RankResult]:
        while True:
            attempt = Attempt(
                self.client, self.training_run, self.restarts, self._on_points
            )
            outcomes = attempt.run(self._deadline)
            if all(outcome.is_success for outcome in outcomes):
                return attempt.results()

            died = next((outcome for outcome in outcomes if outcome.has_died), None)
            if died is None:
                raise error_of_loop(attempt.jobs, outcomes)
            if self.restarts >= self.training_run.max_restarts:
                job = attempt.jobs[died.rank]
                raise error_of_death(job, died, restarts=self.restarts)
            self.restarts += 1

    def _on_points(self, points: list[Metrics]) -> None:
        for point in points:
            self.history.append(point)
            if self._on_metrics is not None:
                self._on_metrics(point)
