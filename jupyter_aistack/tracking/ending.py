"""How a run ends: what is queued is stored as long as the store moves, and the store is
told the end in any case.
"""

from __future__ import annotations

import contextlib
import logging
import time

from jupyter_aistack.exceptions import TrackingError

from .opening import within
from .progress import FlushProgress, announced
from .store import Job, RejectedByStore, Store, first_line
from .writer import Writer, incomplete

log = logging.getLogger("jupyter_aistack")

LAST_SECONDS = 5.0
"""How long the end of a run may take that is told out of its turn."""


class _Finish:
    """Tells a store the end of its run, at the moment it was made."""

    def __init__(self, store: Store, status: str) -> None:
        self._store = store
        self._status = status
        self._ended_at = time.time()
        self.is_done = False
        self.failure = ""

    def __call__(self) -> None:
        try:
            self._store.finish(self._status, self._ended_at)
        except RejectedByStore as error:
            self.failure = error.message  # trying again is of no use
        except Exception as error:
            self.failure = first_line(error)
            raise
        else:
            self.is_done = True


def status_of(error: BaseException | None) -> str:
    """MLflow's word for how a run ended, by what its ``with`` was left with."""
    if error is None:
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def end_run(store: Store, writer: Writer, status: str, *, timeout: float) -> None:
    """Store what is queued and then the end, and close the writer.

    Args:
        store: where the run is.
        writer: what writes there.
        status: MLflow's word for how it ended.
        timeout: give up when nothing has moved for so many seconds.

    Raises:
        TrackingError: how much is not stored, and why; the end is stored all the same
            unless it says otherwise.
    """
    finish = _Finish(store, status)
    is_done = False
    try:
        is_done = writer.wait(timeout, FlushProgress())
        if is_done:
            writer.job(Job(call=finish))
            writer.wait(timeout)
    except BaseException:
        # Who interrupts the wait gives up what is queued, but not the end.
        _end_out_of_turn(writer, finish)
        problem = _problem(store, writer, finish, is_done=is_done, timeout=timeout)
        if problem is not None:
            log.warning("tracking: %s", problem.message)
        raise
    if finish.is_done:
        writer.close()
    else:
        _end_out_of_turn(writer, finish)
    problem = _problem(store, writer, finish, is_done=is_done, timeout=timeout)
    if problem is not None:
        raise problem


def end_at_once(store: Store, writer: Writer | None, status: str) -> None:
    """End a run of which nothing more is to be stored, or that has not begun; within
    seconds, and in silence where the store does not take even that.
    """
    if writer is not None:
        writer.close(timeout=0)
    _tell(_Finish(store, status))


def _problem(
    store: Store, writer: Writer, finish: _Finish, *, is_done: bool, timeout: float
) -> TrackingError | None:
    """What is not stored; None when all is."""
    missing = writer.missing(is_done=is_done)
    if finish.is_done and not missing:
        return None
    failure = writer.failure or finish.failure
    return incomplete(store.run_id, missing, failure, timeout, has_end=finish.is_done)


def _end_out_of_turn(writer: Writer, finish: _Finish) -> None:
    """Tell the end while what is queued could not be stored."""
    writer.close(timeout=0)
    _tell(finish)


def _tell(finish: _Finish) -> None:
    with contextlib.suppress(Exception), announced("ending the run in its store"):
        within(LAST_SECONDS, finish)
