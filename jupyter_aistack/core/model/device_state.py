"""Where the device state of a lease is, as the ledger keeps it, and each step it may
take; pure.

A lease has a device state where its holder may be suspended: its field `residence`.
Each function here gives the state after something has happened; a step that does not
apply raises and changes nothing. Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jupyter_aistack.exceptions import LeaseError


class StatePhase(StrEnum):
    """Where the device state of a lease is."""

    RESIDENT = "resident"
    PARKING = (
        "parking"  # on its way out: still counts on the device, and on the host already
    )
    PARKED = "parked"
    RESTORING = "restoring"  # on its way in: counts on the device already, and on the host still
    LOST = "lost"


class DisplayState(StrEnum):
    """How the device memory of a lease is seen."""

    HELD = "held"  # a cell runs
    WARM = "warm"  # idle, and may be suspended when its capacity is needed
    SUSPENDED = "suspended"  # its state is in host memory
    PINNED = "pinned"  # idle, but stays: it must not or cannot be suspended
    LOST = "lost"  # its state is gone; the kernel must be restarted


class SuspendMethod(StrEnum):
    """How the state of a kernel leaves its device, best first."""

    CHECKPOINT = "checkpoint"  # the driver moves all of it
    SIMULATED = "simulated"  # its device is simulated: nothing moves
    OFFLOAD = "offload"  # what the user has registered moves; the context stays
    OFF = "off"  # it has not left, or there was nothing to move


class RequestedAction(StrEnum):
    """What its user wants, whatever else needs the capacity."""

    NOTHING = ""
    SUSPEND = "suspend"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """Where the device state of one lease is.

    Attributes:
        phase: where it is.
        state_bytes: what it held on each of its devices when it was suspended; None
            while that is not known.
        is_busy: a cell of it runs.
        active_at: when it was last in use, granted or resumed.
        wanted_at: since when a cell of it waits for it to be resumed; None for not.
        pinned: why it must stay; empty when it need not.
        is_checked: its server has found out whether it can be suspended; until then
            it stays.
        is_kept: its user has pinned it.
        failures, failed_at: suspends that failed in a row, and when the last one did.
        asked: what its user wants now.
        tier: how it was suspended; off while it never was.
        is_restored: the driver has restored its processes, or may have: they must not
            be killed with state on a device.
        away_at: since when it takes no capacity of its devices; None while it does.
        away_seconds: how long it took none before that, all in all.
        note: what became of it when it was lost, or why the last suspend failed.
    """

    phase: StatePhase = StatePhase.RESIDENT
    state_bytes: int | None = None
    is_busy: bool = False
    active_at: float = 0.0
    wanted_at: float | None = None
    pinned: str = ""
    is_checked: bool = True
    is_kept: bool = False
    failures: int = 0
    failed_at: float = 0.0
    asked: RequestedAction = RequestedAction.NOTHING
    tier: SuspendMethod = SuspendMethod.OFF
    is_restored: bool = False
    away_at: float | None = None
    away_seconds: float = 0.0
    note: str = ""

    @property
    def standing(self) -> DisplayState:
        """How it is shown."""
        return display_state(self)

    @property
    def why(self) -> str:
        """Why it stands so, for people; empty for nothing."""
        if self.phase is StatePhase.LOST:
            return self.note
        return why_pinned(self) or self.note

    @property
    def is_away(self) -> bool:
        """Whether it takes no capacity of its devices, and none is promised to it."""
        return self.phase is StatePhase.LOST or (
            self.phase is StatePhase.PARKED and self.wanted_at is None
        )


PINNED_BY_USER = "pinned by the user"
NOT_CHECKED = "suspend support not checked yet"


def why_pinned(state: DeviceState) -> str:
    """Why it must stay, its user's wish included; empty when it need not."""
    if state.is_kept:
        return PINNED_BY_USER
    return state.pinned


def display_state(state: DeviceState) -> DisplayState:
    """How it is shown; `why_pinned` says why it is pinned."""
    if state.phase is StatePhase.LOST:
        return DisplayState.LOST
    if state.phase in (StatePhase.PARKED, StatePhase.RESTORING):
        return DisplayState.SUSPENDED
    if state.is_busy:
        return DisplayState.HELD
    if why_pinned(state):
        return DisplayState.PINNED
    return DisplayState.WARM


# -- cells -----------------------------------------------------------------------------


def cell_begins(state: DeviceState, now: float) -> DeviceState:
    """A cell wants the device: it runs where the state is there, and waits for it
    otherwise.
    """
    if state.phase is StatePhase.LOST:
        return state
    if state.phase is StatePhase.RESIDENT:
        return replace(
            state, is_busy=True, active_at=now, asked=RequestedAction.NOTHING
        )
    since = now if state.wanted_at is None else state.wanted_at
    return replace(state, wanted_at=since, asked=RequestedAction.NOTHING)


def cell_ends(state: DeviceState, now: float) -> DeviceState:
    """Its cell is over, or has given up waiting."""
    used_at = now if state.is_busy else state.active_at
    return replace(state, is_busy=False, wanted_at=None, active_at=used_at)


# -- suspending ------------------------------------------------------------------------


def begin_suspend(state: DeviceState) -> DeviceState:
    """Its state begins to move out."""
    _check(state, StatePhase.RESIDENT, "begin to suspend")
    return replace(state, phase=StatePhase.PARKING, asked=RequestedAction.NOTHING)


def suspended(
    state: DeviceState, *, state_bytes: int, tier: SuspendMethod
) -> DeviceState:
    """All of its state is in host memory."""
    _check(state, StatePhase.PARKING, "be suspended")
    return replace(
        state,
        phase=StatePhase.PARKED,
        state_bytes=state_bytes,
        tier=tier,
        failures=0,
        is_busy=False,
        note="",
    )


def suspend_failed(state: DeviceState, now: float, note: str) -> DeviceState:
    """It could not be moved out, and goes on where it was."""
    _check(state, StatePhase.PARKING, "fail to suspend")
    return replace(
        _back_on_device(state), failures=state.failures + 1, failed_at=now, note=note
    )


# -- resuming --------------------------------------------------------------------------


def begin_resume(state: DeviceState) -> DeviceState:
    """Its bytes are reserved, and its state begins to move in.

    That the driver has restored it is noted now: the process that does it may end
    before it can say that it did.
    """
    _check(state, StatePhase.PARKED, "begin to resume")
    is_by_driver = state.tier is SuspendMethod.CHECKPOINT
    return replace(
        state,
        phase=StatePhase.RESTORING,
        is_restored=state.is_restored or is_by_driver,
    )


def resumed(state: DeviceState, now: float) -> DeviceState:
    """All of its state is back; the cell that waited for it goes on."""
    _check(state, StatePhase.RESTORING, "be resumed")
    return replace(_back_on_device(state), state_bytes=None, active_at=now, note="")


def resume_failed(state: DeviceState, note: str) -> DeviceState:
    """It is still suspended whole, and may be tried again."""
    _check(state, StatePhase.RESTORING, "fail to resume")
    return replace(state, phase=StatePhase.PARKED, note=note)


def mark_restored(state: DeviceState) -> DeviceState:
    """The driver has copied state back to a device in one of its processes."""
    return replace(state, is_restored=True)


def _back_on_device(state: DeviceState) -> DeviceState:
    """On its device; a cell that waited for it runs, where it was not its user alone
    who wanted it resumed.
    """
    is_for_user = state.asked is RequestedAction.RESUME
    return replace(
        state,
        phase=StatePhase.RESIDENT,
        is_busy=state.wanted_at is not None and not is_for_user,
        wanted_at=None,
        asked=RequestedAction.NOTHING,
    )


# -- what else may happen --------------------------------------------------------------


def mark_lost(state: DeviceState, note: str) -> DeviceState:
    """Its state is gone."""
    return replace(
        state,
        phase=StatePhase.LOST,
        is_busy=False,
        wanted_at=None,
        asked=RequestedAction.NOTHING,
        note=note,
    )


def unchecked(now: float) -> DeviceState:
    """The state of a process not known yet to be suspendable or not."""
    return DeviceState(active_at=now, pinned=NOT_CHECKED, is_checked=False)


def reset_for_new_process(state: DeviceState, now: float) -> DeviceState:
    """The device state of a lease whose process was replaced: its state went with the
    old process, and whether the new process may be suspended is not known yet.

    A lease whose capacity was given away has none until its first cell asks for it, and
    then nothing to move in.
    """
    new = replace(unchecked(now), is_kept=state.is_kept)
    if state.phase in (StatePhase.PARKED, StatePhase.LOST):
        return replace(new, phase=StatePhase.PARKED, state_bytes=0)
    return new


def request_action(
    state: DeviceState, asked: RequestedAction, now: float
) -> DeviceState:
    """Its user wants it suspended or resumed.

    Raises:
        LeaseError: that makes no sense now; says why.
    """
    if state.phase is StatePhase.LOST:
        raise LeaseError(f"its state is lost ({state.note}); restart the kernel")
    if asked is RequestedAction.RESUME:
        return _request_resume(state, now)
    if asked is RequestedAction.SUSPEND:
        _check_may_be_asked_to_suspend(state)
    if state.phase is StatePhase.RESIDENT:
        return replace(state, asked=asked)
    return _withdraw_resume(state)


def _check_may_be_asked_to_suspend(state: DeviceState) -> None:
    if state.is_busy:
        raise LeaseError("a cell is running; suspend when it finishes")
    if why_pinned(state):
        raise LeaseError(f"it cannot be suspended: {why_pinned(state)}")
    if state.phase is StatePhase.RESTORING:
        raise LeaseError("it is being resumed; suspend it once it is there")


def _request_resume(state: DeviceState, now: float) -> DeviceState:
    """A resident lease stays resident; a lease that a cell waits for is on its way
    already.
    """
    if state.phase is StatePhase.RESIDENT:
        return replace(state, asked=RequestedAction.NOTHING)
    if state.wanted_at is not None:
        return state
    return replace(state, asked=RequestedAction.RESUME, wanted_at=now)


def _withdraw_resume(state: DeviceState) -> DeviceState:
    """A suspended lease stays so, but for a cell that waits for it."""
    wanted_at = state.wanted_at
    if state.asked is RequestedAction.RESUME:
        wanted_at = None
    return replace(state, asked=RequestedAction.NOTHING, wanted_at=wanted_at)


def pin(state: DeviceState, is_kept: bool) -> DeviceState:
    """Its user wants it to stay on the device whatever else needs the capacity, or no
    longer.
    """
    return replace(state, is_kept=is_kept)


def with_pin_reason(state: DeviceState, why: str) -> DeviceState:
    """Something makes it unfit to be suspended (empty: nothing does)."""
    return replace(state, pinned=why, is_checked=True)


def with_suspended_time(
    before: DeviceState, after: DeviceState, now: float
) -> DeviceState:
    """`after` any step from `before`, with how long it has taken no capacity."""
    since = now if before.away_at is None else before.away_at
    if after.is_away:
        return replace(after, away_at=since, away_seconds=before.away_seconds)
    just_ended = max(0.0, now - since)
    return replace(after, away_at=None, away_seconds=before.away_seconds + just_ended)


def _check(state: DeviceState, phase: StatePhase, step: str) -> None:
    if state.phase is not phase:
        raise LeaseError(
            f"a lease whose state is {state.phase.value} cannot {step}",
            phase=state.phase.value,
        )
