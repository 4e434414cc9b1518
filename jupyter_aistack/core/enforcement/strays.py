"""What is due about a process that uses a GPU without a lease: the rule, without a
clock, a signal or a look at the system.

A grace period begins when a process was first seen without a lease, and not with the
process: a notebook whose lease has just ended is as old as its kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from jupyter_aistack.core.model.stray import Exemption, StrayAction, StrayPolicy

SETTLE_SECONDS = 5.0
"""So long a process must have been seen without a lease before anything is done: one
that starts is tied to its lease a moment later, and what a broker sees first after its
own start is not all there is."""
KILL_SECONDS = 10.0
"""Between the request to end (SIGTERM) and the end (SIGKILL): a program may save."""

ROOT = 0
SCREENS = frozenset(
    {
        "Xorg",
        "Xwayland",
        "cosmic-comp",
        "gnome-remote-desktop-daemon",
        "gnome-shell",
        "kwin_wayland",
        "kwin_x11",
        "mutter-x11-frames",
        "plasmashell",
        "sddm-greeter",
        "sway",
        "weston",
    }
)
"""Programs that draw screens."""


@dataclass(frozen=True, kw_only=True)
class StrayFacts:
    """What can be seen of a process on a device's list that has no lease of it.

    Attributes:
        uid: its user's number; None where that cannot be seen.
        started: when it started, in seconds since the machine did; None where that
            cannot be seen.
        user: its user's login; empty where that cannot be seen.
        groups: the Unix groups of that user.
        program: the name of its program, as it calls itself; empty where that cannot be
            seen.
        installed: the name of the file it runs, where that is root's and nobody else
            may change it: a program may call itself anything.
        is_broker: it is the broker, or what that has started to look at devices.
        is_holder: it has a lease of another device.
        may_hold: it may have a lease of this one: its user has some there whose
            processes cannot be seen.
        is_within_reach: this broker may end it.
    """

    uid: int | None = None
    started: float | None = None
    user: str = ""
    groups: frozenset[str] = frozenset()
    program: str = ""
    installed: str = ""
    is_broker: bool = False
    is_holder: bool = False
    may_hold: bool = False
    is_within_reach: bool = False


def exemption_of(
    facts: StrayFacts, exempt: frozenset[str], services: frozenset[str] = frozenset()
) -> Exemption:
    """Why a process is left alone, the firmest reason first.

    Args:
        facts: the process.
        exempt: logins, and ``@group`` names, that are listed.
        services: programs of drivers that work for other processes.
    """
    is_unseen = facts.uid is None or facts.started is None or not facts.program
    listed = {facts.user, *(f"@{group}" for group in facts.groups)}
    # In this order: the first that holds is the reason.
    reasons = (
        (is_unseen or facts.may_hold, Exemption.UNKNOWN),
        (facts.is_broker, Exemption.BROKER),
        (facts.uid == ROOT, Exemption.ROOT),
        (facts.installed in SCREENS | services, Exemption.DISPLAY),
        (not listed.isdisjoint(exempt), Exemption.LISTED),
        (facts.is_holder, Exemption.HOLDER),
        (not facts.is_within_reach, Exemption.OUT_OF_REACH),
    )
    return next((reason for holds, reason in reasons if holds), Exemption.NONE)


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What is remembered of a stray. Seconds are of a clock that nobody sets.

    Attributes:
        seen: when it was first seen without a lease.
        is_told: it was written down that it is there.
        asked: when it was asked to end; None while it was not.
    """

    seen: float
    is_told: bool = False
    asked: float | None = None


class StrayStep(Enum):
    """What is to be done about a stray now."""

    NONE = auto()
    TELL = auto()  # write down that it is there
    ASK = auto()  # ask it to end, so that it can save
    KILL = auto()


def due_step(
    sighting: Sighting, exemption: Exemption, policy: StrayPolicy, now: float
) -> StrayStep:
    """What is due about a stray at `now`, on the clock of its sighting."""
    is_settled = now - sighting.seen >= SETTLE_SECONDS
    if policy.action is StrayAction.NOTHING or not is_settled:
        return StrayStep.NONE
    if not sighting.is_told:
        return StrayStep.TELL
    ends = end_of(sighting, exemption, policy)
    if ends is None or now < ends:
        return StrayStep.NONE
    if sighting.asked is None:
        return StrayStep.ASK
    return StrayStep.KILL if now - sighting.asked >= KILL_SECONDS else StrayStep.NONE


def end_of(
    sighting: Sighting, exemption: Exemption, policy: StrayPolicy
) -> float | None:
    """When a stray is asked to end, on the clock of its sighting; None for never."""
    is_left = exemption is not Exemption.NONE
    if policy.action is not StrayAction.TERMINATE or is_left:
        return None
    return sighting.seen + max(policy.grace_seconds, SETTLE_SECONDS)
