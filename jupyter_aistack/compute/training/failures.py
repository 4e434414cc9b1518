"""How ranks end, and the error that a failed attempt raises in the notebook."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_aistack.exceptions import TrainingError

from .job import RankError, TrainingJob

LOG_LINES = 20
"""How much of a rank's log goes into an error."""


@dataclass(frozen=True, kw_only=True)
class AttemptOutcome:
    """How a rank ended.

    Attributes:
        rank: which.
        code: its exit status, negative for a signal; None when its worker is gone.
        was_stopped: whether it was asked to end because another rank had failed.
        note: what Dask says of it, in parentheses.
    """

    rank: int
    code: int | None
    was_stopped: bool = False
    note: str = ""

    @property
    def is_success(self) -> bool:
        """Whether its loop returned."""
        return self.code == 0 and not self.was_stopped

    @property
    def has_died(self) -> bool:
        """Ended by neither the loop nor us, so that starting again may help."""
        return not self.was_stopped and (self.code is None or self.code < 0)


def error_of_loop(
    jobs: Sequence[TrainingJob], outcomes: Sequence[AttemptOutcome]
) -> TrainingError:
    """The error of the rank that failed first: the others only lost touch with it."""
    errors = {
        job.rank: RankError.from_json(job.error_file.read_text())
        for job in jobs
        if job.error_file.exists()
    }
    if not errors:
        endings = "; ".join(
            f"rank {outcome.rank}: exit status {outcome.code} {outcome.note}"
            for outcome in outcomes
        )
        return TrainingError(f"ranks exited without an error message ({endings})")

    rank = min(errors, key=lambda number: errors[number].failed_at)
    error = errors[rank]
    return TrainingError(
        f"rank {rank} failed: {error.type}: {error.message}\n\n{error.traceback}",
        rank=rank,
        type=error.type,
        traceback=error.traceback,
    )


def error_of_death(
    job: TrainingJob, outcome: AttemptOutcome, *, restarts: int
) -> TrainingError:
    """The error of a rank that neither returned nor raised, with the end of its log."""
    message = (
        f"rank {outcome.rank} {_cause(outcome.code)}, and had been started again "
        f"{restarts} times; allow more with max_restarts{outcome.note}"
    )
    log = _log_end(job)
    if log:
        message = f"{message}\n\n{log}"
    return TrainingError(message, rank=outcome.rank)


def _cause(code: int | None) -> str:
    if code is None:
        return "lost its worker"
    ended = f"was ended by {signal.Signals(-code).name}"
    return f"{ended} (out of memory, perhaps)" if code == -signal.SIGKILL else ended


def _log_end(job: TrainingJob) -> str:
    if not job.log_file.exists():
        return ""
    lines = job.log_file.read_text(errors="replace").splitlines(keepends=True)
    return "".join(lines[-LOG_LINES:])
