"""The helper, and what to do when an operation fails half way: go on from there, or say
that the state is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint.client import (
    CheckpointClient,
    CheckpointReply,
)
from jupyter_aistack.providers.nvidia.checkpoint.refusals import (
    FINAL,
    CheckpointRefusal,
)

RUNNING = "running"
LOCKED = "locked"
CHECKPOINTED = "checkpointed"
FAILED = "failed"
UNKNOWN = "unknown"
AWAY = frozenset({LOCKED, CHECKPOINTED, FAILED})
"""States in which a process cannot use its device, whatever has brought it there: an
earlier server, say.
"""
ATTEMPTS = 3
"""Of one operation, over as many helpers; each but the last helper ended in the
middle of it.
"""


class DriverCheckpoint:
    """Moves processes with the driver's checkpoint. Call it in a thread: an operation
    takes as long as it takes.

    Args:
        helper: who speaks to the driver.
        lock_seconds: how long the work that a process has submitted may take to end.
    """

    def __init__(self, helper: CheckpointClient, *, lock_seconds: float = 5.0) -> None:
        self._helper = helper
        self._lock_seconds = lock_seconds

    def states(self, pids: Iterable[int]) -> dict[int, str]:
        """The state of each process; unknown for those that have none, or of which
        the driver does not say.
        """
        return {pid: self._state_of(pid) for pid in sorted(pids)}

    def suspend(self, pids: Collection[int]) -> Mapping[str, float]:
        """Move the states of processes off the device, all or none; returns the seconds
        of each step.

        Raises:
            CheckpointFailed: ``state`` is running when all go on as before, failed when
                their state is lost, unknown when the driver does not say, as
                when they have ended.
        """
        failed = CheckpointFailed()
        for _ in range(ATTEMPTS):
            try:
                reply = self._helper.suspend(*pids, lock_seconds=self._lock_seconds)
                return reply.seconds
            except CheckpointFailed as error:
                failed = error
            state = self._state_after(failed, pids)
            if state == CHECKPOINTED:
                return {}
            is_settled = state in (RUNNING, FAILED, UNKNOWN)
            if is_settled or not failed.facts.get("helper_ended"):
                break
        raise _with_state(failed, self._undo(pids, self._state_after(failed, pids)))

    def _undo(self, pids: Collection[int], state: str) -> str:
        """Undo what was done half way; the state then."""
        if state in (RUNNING, FAILED, UNKNOWN):
            return state
        try:
            self.resume(pids)
        except CheckpointFailed as error:
            return FAILED if error.facts["state"] != UNKNOWN else UNKNOWN
        return RUNNING

    def resume(self, pids: Collection[int]) -> Mapping[str, float]:
        """Move them back onto the device. Their bytes must be free and reserved.

        Raises:
            CheckpointFailed: ``state`` is checkpointed when it may be tried again,
                failed when their state is lost, unknown when the driver does
                not say.
        """
        failed = CheckpointFailed()
        state = UNKNOWN
        for _ in range(ATTEMPTS):
            try:
                return self._resume_once(pids).seconds
            except CheckpointFailed as error:
                failed = error
            if failed.facts.get("code") is CheckpointRefusal.OUT_OF_MEMORY:
                # It cannot be tried again, whatever state is shown (cuda-checkpoint#44).
                raise _with_state(failed, FAILED)
            state = self._state_after(failed, pids)
            if state == RUNNING:
                return {}
            is_refused = state == CHECKPOINTED and not failed.facts.get("helper_ended")
            if state in (FAILED, UNKNOWN) or is_refused:
                raise _with_state(failed, state)
        raise _with_state(failed, state if state == CHECKPOINTED else FAILED)

    def _resume_once(self, pids: Collection[int]) -> CheckpointReply:
        answer = self._helper.resume(*pids)
        if answer.state != RUNNING:
            raise CheckpointFailed(
                f"it is {answer.state} after it was resumed",
                step="restore",
                state=answer.state,
                code=CheckpointRefusal.OTHER,
            )
        return answer

    def _state_after(self, failed: CheckpointFailed, pids: Collection[int]) -> str:
        """How a failed operation has left `pids`; asked anew where the helper ended
        over it.
        """
        if not failed.facts.get("helper_ended"):
            return str(failed.facts.get("state", UNKNOWN))
        states = {self._state_of(pid) for pid in pids}
        if len(states) == 1:
            return states.pop()
        return FAILED if FAILED in states else "mixed"

    def _state_of(self, pid: int) -> str:
        try:
            return self._helper.state(pid)
        except CheckpointFailed:
            return UNKNOWN


def is_hopeless(failed: CheckpointFailed) -> bool:
    """Whether the driver will never move this process."""
    return failed.facts.get("code") in FINAL


def is_still_working(failed: CheckpointFailed) -> bool:
    """Whether work that the process has submitted did not end before it was to be
    locked.
    """
    is_locking = failed.facts.get("step") == "lock"
    return is_locking and failed.facts.get("code") is CheckpointRefusal.NOT_READY


def _with_state(failed: CheckpointFailed, state: str) -> CheckpointFailed:
    return CheckpointFailed(
        failed.message,
        step=failed.facts.get("step", ""),
        code=failed.facts.get("code", CheckpointRefusal.OTHER),
        state=state,
    )
