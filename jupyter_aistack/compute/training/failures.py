"""How ranks end, and the error that a failed attempt raises in the notebook."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_aistack.exceptions import TrainingError

from .heartbeat import RankBeat
from .job import RankError, TrainingJob
from .stalls import Stall

LOG_LINES = 20
"""How much of a rank's log goes into an error."""

_STATES = {
    "T": ", which is stopped (SIGSTOP)",
    "t": ", which a debugger has stopped",
    "D": ", which waits for a disk or a mount",
}
"""What the kernel says a stalled process does, for people; see proc(5)."""

SIGNAL_BASE = 128
"""A process that signal n has ended is known to shells by the exit status 128 + n."""


@dataclass(frozen=True, kw_only=True)
class AttemptOutcome:
    """How a rank ended.

    Attributes:
        rank: which.
        code: its exit status, negative for a signal; None when its worker is gone.
        was_stopped: whether it was asked to end because another rank had failed.
        has_result: whether it left what its loop returned.
        stall: why it was ended: it held the others up.
        note: what Dask says of it, in parentheses.
    """

    rank: int
    code: int | None
    was_stopped: bool = False
    has_result: bool = True
    stall: Stall | None = None
    note: str = ""

    @property
    def is_success(self) -> bool:
        """Whether its loop returned."""
        return self.code == 0 and self.has_result and not self.was_stopped

    @property
    def has_left(self) -> bool:
        """Whether its process ended by itself, and before the loop returned."""
        has_exited = self.code is not None and self.code >= 0
        return has_exited and not self.has_result and not self.was_stopped

    @property
    def has_lost_worker(self) -> bool:
        """Whether nobody can tell how it ended."""
        return self.code is None and self.stall is None

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
    left = next((each for each in outcomes if _has_left(each, errors)), None)
    if left is not None:
        return _error_of_exit(jobs[left.rank], left)
    if not errors:
        endings = "; ".join(
            f"rank {outcome.rank}: exit status {outcome.code} {outcome.note}"
            for outcome in outcomes
        )
        return TrainingError(f"ranks exited without an error message ({endings})")

    rank = min(errors, key=lambda number: errors[number].failed_at)
    error = errors[rank]
    return TrainingError(
        f"rank {rank} {_description(error)}\n\n{error.traceback}",
        rank=rank,
        type=error.type,
        traceback=error.traceback,
    )


def _has_left(outcome: AttemptOutcome, errors: Mapping[int, RankError]) -> bool:
    return outcome.has_left and outcome.rank not in errors


def _description(error: RankError) -> str:
    if error.type == SystemExit.__name__:
        return f"left with sys.exit({error.message}) before its loop returned"
    return f"failed: {error.type}: {error.message}"


def _error_of_exit(job: TrainingJob, outcome: AttemptOutcome) -> TrainingError:
    """The error of a rank whose process ended inside the loop, with neither a result
    nor an exception.
    """
    message = (
        f"rank {outcome.rank} ended its process with exit status {_status(outcome.code)} "
        f"before its loop returned (os._exit, or a library that exits); the loop must return{outcome.note}"
    )
    return TrainingError(_with_log(message, job), rank=outcome.rank)


def _status(code: int | None) -> str:
    """An exit status; one that a shell gives for a signal is told as that."""
    if code is None or code <= SIGNAL_BASE:
        return str(code)
    return f"{code} ({SIGNAL_BASE} + {_signal_name(code - SIGNAL_BASE)})"


def error_of_deadlock(stall: Stall) -> TrainingError:
    """The error of ranks that wait for one another."""
    places = "; ".join(
        f"rank {rank} {where(beat)}" for rank, beat in sorted(stall.beats.items())
    )
    return TrainingError(
        f"all ranks have waited for one another for {stall.seconds:.0f} s, perhaps because they do not all "
        f"make the same collective calls or equally many steps: {places}"
    )


def error_of_stall(job: TrainingJob, stall: Stall, *, restarts: int) -> TrainingError:
    """The error of a rank that held the others up.

    Args:
        job: of the rank.
        stall: what was seen.
        restarts: how often it had been started again.
    """
    beat = stall.beats[job.rank]
    seen = f"{where(beat)}{_STATES.get(stall.state, '')}"
    message = (
        f"rank {job.rank} has stalled: for {stall.seconds:.0f} s it has neither gone on nor computed while the "
        f"other ranks waited for it; it was last seen {seen}; {_checkpoint(job)}. It had been started again "
        f"{restarts} times; allow more with max_restarts, or a longer wait with stall_timeout"
    )
    return TrainingError(
        message,
        rank=job.rank,
        seconds=stall.seconds,
        epoch=None if beat is None else beat.epoch,
        batch=None if beat is None else beat.batch,
        host=None if beat is None else beat.host,
        pid=None if beat is None else beat.pid,
    )


def _checkpoint(job: TrainingJob) -> str:
    """What became of the checkpoint, for people."""
    if not job.checkpoint_file.exists():
        return "no checkpoint was written"
    if not job.outlives_run:
        return "its checkpoint ends with the run, for want of a checkpoint_dir"
    return f"the last checkpoint is kept in {job.checkpoint_file}"


def where(beat: RankBeat | None) -> str:
    """Where a rank was, for people."""
    if beat is None:
        return "before its first sign of life"
    place = f" ({beat.place})" if beat.place else ""
    return (
        f"in epoch {beat.epoch} after batch {beat.batch}, {beat.phase}{place}, "
        f"as process {beat.pid} on {beat.host}"
    )


def error_of_death(
    job: TrainingJob, outcome: AttemptOutcome, *, restarts: int
) -> TrainingError:
    """The error of a rank that neither returned nor raised, with the end of its log."""
    if outcome.stall is not None:
        return error_of_stall(job, outcome.stall, restarts=restarts)
    message = (
        f"rank {outcome.rank} {_cause(outcome.code)}, and had been started again "
        f"{restarts} times; allow more with max_restarts{outcome.note}"
    )
    return TrainingError(_with_log(message, job), rank=outcome.rank)


def _cause(code: int | None) -> str:
    if code is None:
        return "lost its worker"
    status = f"exit status {SIGNAL_BASE - code}"
    ended = f"was ended by {_signal_name(-code)}"
    if code == -signal.SIGKILL:
        return f"{ended} ({status}; out of memory, perhaps)"
    return f"{ended} ({status})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _with_log(message: str, job: TrainingJob) -> str:
    log = _log_end(job)
    return f"{message}\n\n{log}" if log else message


def _log_end(job: TrainingJob) -> str:
    if not job.log_file.exists():
        return ""
    lines = job.log_file.read_text(errors="replace").splitlines(keepends=True)
    return "".join(lines[-LOG_LINES:])
