"""Where the device state of a lease is, as the ledger keeps it, and each step it may
take; pure.

A lease has a residence where its holder may be suspended. Each function here gives the
residence after something has happened; one that does not apply raises and changes
nothing. Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jupyter_aistack.exceptions import LeaseError


class StatePhase(StrEnum):
    """Where the state of a tenant is."""

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
    WARM = "warm"  # idle, and may be suspended when somebody needs the room
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
    """What its user wants, whoever else needs the room."""

    NOTHING = ""
    SUSPEND = "suspend"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """Where the device state of one lease is.

    Attributes:
        phase: where it is.
        state_bytes: what it held on each of its devices when it was parked; None while
            that is not known.
        is_busy: a cell of it runs.
        active_at: when it was last in use, came or came back.
        wanted_at: since when a cell of it waits to have it back; None for not.
        pinned: why it must stay; empty when it need not.
        is_kept: it is its user who says so.
        failures, failed_at: suspends that failed in a row, and when the last one did.
        asked: what its user wants now.
        tier: how it was parked; off while it never was.
        is_restored: the driver has restored its processes, or may have: they must not
            be killed with state on a device.
        away_at: since when it takes no room on its devices; None while it does.
        away_seconds: how long it took none before that, all in all.
        note: what became of it when it was lost, or why the last suspend failed.
    """

    phase: StatePhase = StatePhase.RESIDENT
    state_bytes: int | None = None
    is_busy: bool = False
    active_at: float = 0.0
    wanted_at: float | None = None
    pinned: str = ""
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
        """Whether it takes no room on its devices, and none is promised to it."""
        return self.phase is StatePhase.LOST or (
            self.phase is StatePhase.PARKED and self.wanted_at is None
        )


PINNED_BY_USER = "its user keeps it here until it is unpinned"
NOT_CHECKED = "its server has not looked yet whether it can be suspended"


def why_pinned(residence: DeviceState) -> str:
    """Why it must stay, its user's wish included; empty when it need not."""
    return PINNED_BY_USER if residence.is_kept else residence.pinned


def display_state(residence: DeviceState) -> DisplayState:
    """How it is shown; why it is pinned says `why_pinned`."""
    if residence.phase is StatePhase.LOST:
        return DisplayState.LOST
    if residence.phase in (StatePhase.PARKED, StatePhase.RESTORING):
        return DisplayState.SUSPENDED
    if residence.is_busy:
        return DisplayState.HELD
    return DisplayState.PINNED if why_pinned(residence) else DisplayState.WARM


def cell_begins(residence: DeviceState, now: float) -> DeviceState:
    """A cell wants the device: it runs where the state is there, and waits for it
    otherwise.
    """
    if residence.phase is StatePhase.LOST:
        return residence
    if residence.phase is StatePhase.RESIDENT:
        return replace(
            residence, is_busy=True, active_at=now, asked=RequestedAction.NOTHING
        )
    since = now if residence.wanted_at is None else residence.wanted_at
    return replace(residence, wanted_at=since, asked=RequestedAction.NOTHING)


def cell_ends(residence: DeviceState, now: float) -> DeviceState:
    """Its cell is over, or has given up waiting."""
    used = now if residence.is_busy else residence.active_at
    return replace(residence, is_busy=False, wanted_at=None, active_at=used)


def begin_suspend(residence: DeviceState) -> DeviceState:
    """Its state begins to move out."""
    _check(residence, StatePhase.RESIDENT, "suspend")
    return replace(residence, phase=StatePhase.PARKING, asked=RequestedAction.NOTHING)


def suspended(
    residence: DeviceState, *, state_bytes: int, tier: SuspendMethod
) -> DeviceState:
    """All of its state is in host memory."""
    _check(residence, StatePhase.PARKING, "be parked")
    gone = replace(
        residence, phase=StatePhase.PARKED, state_bytes=state_bytes, tier=tier
    )
    return replace(gone, failures=0, is_busy=False, note="")


def suspend_failed(residence: DeviceState, now: float, note: str) -> DeviceState:
    """It could not be moved out, and goes on where it was."""
    _check(residence, StatePhase.PARKING, "stay")
    there = _is_there(residence)
    return replace(there, failures=residence.failures + 1, failed_at=now, note=note)


def begin_resume(residence: DeviceState) -> DeviceState:
    """Its bytes are reserved, and its state begins to move in; who does it may end
    before it can say that it did.
    """
    _check(residence, StatePhase.PARKED, "resume")
    is_restored = residence.is_restored or residence.tier is SuspendMethod.CHECKPOINT
    return replace(residence, phase=StatePhase.RESTORING, is_restored=is_restored)


def resumed(residence: DeviceState, now: float) -> DeviceState:
    """All of its state is back; the cell that waited for it goes on."""
    _check(residence, StatePhase.RESTORING, "come back")
    return replace(_is_there(residence), state_bytes=None, active_at=now, note="")


def mark_restored(residence: DeviceState) -> DeviceState:
    """The driver has copied state back to a device in one of its processes."""
    return replace(residence, is_restored=True)


def _is_there(residence: DeviceState) -> DeviceState:
    """On its device; a cell that waited for it runs, where it was not its user alone
    who wanted it back.
    """
    runs = (
        residence.wanted_at is not None
        and residence.asked is not RequestedAction.RESUME
    )
    return replace(
        residence,
        phase=StatePhase.RESIDENT,
        is_busy=runs,
        wanted_at=None,
        asked=RequestedAction.NOTHING,
    )


def resume_failed(residence: DeviceState, note: str) -> DeviceState:
    """It is still parked whole, and may be tried again."""
    _check(residence, StatePhase.RESTORING, "stay parked")
    return replace(residence, phase=StatePhase.PARKED, note=note)


def mark_lost(residence: DeviceState, note: str) -> DeviceState:
    """Its state is gone."""
    return replace(
        residence,
        phase=StatePhase.LOST,
        is_busy=False,
        wanted_at=None,
        asked=RequestedAction.NOTHING,
        note=note,
    )


def reset_for_new_process(residence: DeviceState, now: float) -> DeviceState:
    """Its process is another one: its state went with the old one, and nobody knows yet
    whether this one may move.

    One whose room was given away has none until its first cell asks for it, and then
    nothing to bring back.
    """
    new = DeviceState(active_at=now, is_kept=residence.is_kept, pinned=NOT_CHECKED)
    has_room = residence.phase not in (StatePhase.PARKED, StatePhase.LOST)
    return new if has_room else replace(new, phase=StatePhase.PARKED, state_bytes=0)


def request_action(
    residence: DeviceState, asked: RequestedAction, now: float
) -> DeviceState:
    """Its user wants it suspended or back.

    Raises:
        LeaseError: that makes no sense now; says why.
    """
    if residence.phase is StatePhase.LOST:
        raise LeaseError(f"its state is lost ({residence.note}); restart the kernel")
    if asked is RequestedAction.SUSPEND and residence.is_busy:
        raise LeaseError("a cell of it runs; suspend it once that is done")
    if asked is RequestedAction.SUSPEND and why_pinned(residence):
        raise LeaseError(f"it cannot be suspended: {why_pinned(residence)}")
    if asked is RequestedAction.RESUME:
        return _asks_back(residence, now)
    if asked is RequestedAction.SUSPEND and residence.phase is StatePhase.RESTORING:
        raise LeaseError("it is on its way back; suspend it once it is there")
    if residence.phase is not StatePhase.RESIDENT:
        return _asks_nothing(residence)
    return replace(residence, asked=asked)


def _asks_back(residence: DeviceState, now: float) -> DeviceState:
    """One that is there stays there; one that a cell waits for is on its way
    already.
    """
    if residence.phase is StatePhase.RESIDENT or residence.wanted_at is not None:
        return replace(
            residence,
            asked=RequestedAction.NOTHING
            if residence.phase is StatePhase.RESIDENT
            else residence.asked,
        )
    return replace(residence, asked=RequestedAction.RESUME, wanted_at=now)


def _asks_nothing(residence: DeviceState) -> DeviceState:
    """One that is away stays away, but for a cell that waits for it."""
    wanted_at = (
        None if residence.asked is RequestedAction.RESUME else residence.wanted_at
    )
    return replace(residence, asked=RequestedAction.NOTHING, wanted_at=wanted_at)


def pin(residence: DeviceState, is_kept: bool) -> DeviceState:
    """Its user wants it to stay on the device whoever needs the room, or no longer."""
    return replace(residence, is_kept=is_kept)


def with_pin_reason(residence: DeviceState, why: str) -> DeviceState:
    """Something makes it unfit to be suspended (empty: nothing does)."""
    return replace(residence, pinned=why)


def with_suspended_time(
    before: DeviceState, after: DeviceState, now: float
) -> DeviceState:
    """`after` any step from `before`, with how long it has taken no room."""
    since = before.away_at if before.away_at is not None else now
    back = (
        max(0.0, now - since)
        if before.away_at is not None and not after.is_away
        else 0.0
    )
    return replace(
        after,
        away_at=since if after.is_away else None,
        away_seconds=before.away_seconds + back,
    )


def _check(residence: DeviceState, phase: StatePhase, what: str) -> None:
    if residence.phase is not phase:
        raise LeaseError(
            f"a lease whose state is {residence.phase.value} cannot {what}",
            phase=residence.phase.value,
        )
