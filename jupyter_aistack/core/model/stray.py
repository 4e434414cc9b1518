"""A stray: a process that uses a GPU for which it has no lease, shown as what it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StrayAction(StrEnum):
    """What is done about strays."""

    NOTHING = "nothing"  # they are shown, and their users see them first
    WARN = "warn"  # it is written down too, and logged
    TERMINATE = "terminate"  # they are ended after a grace period


class Exemption(StrEnum):
    """Why nobody ends a stray, whatever the policy."""

    NONE = ""
    UNKNOWN = "unknown"  # who it is cannot be seen, or whether it has a lease
    ROOT = "root"  # it is the superuser's
    LISTED = "listed"  # its user is listed in `AIStack.stray_exempt`
    DISPLAY = "display"  # it draws the screen, or serves others
    BROKER = "broker"  # the broker itself, or what it has started to look at a device
    HOLDER = "holder"  # it has a lease of another GPU
    OUT_OF_REACH = "out_of_reach"  # this broker may not end other users' processes

    @property
    def label(self) -> str:
        """Why it is left alone, for people; empty for none."""
        return _LABELS[self]


_LABELS = {
    Exemption.NONE: "",
    Exemption.UNKNOWN: "who it is, or whether it has a lease, cannot be seen",
    Exemption.ROOT: "it is root's",
    Exemption.LISTED: "its user is exempt",
    Exemption.DISPLAY: "it serves a screen or other processes",
    Exemption.BROKER: "it is the broker's own",
    Exemption.HOLDER: "it has a lease of another GPU",
    Exemption.OUT_OF_REACH: "this broker may not end it",
}


@dataclass(frozen=True, kw_only=True)
class StrayPolicy:
    """What an administrator has decided about strays.

    Attributes:
        action: what is done about them.
        grace_seconds: between the moment when one was first seen and its end.
        exempt: logins, and ``@group`` names, whose processes are never ended.
    """

    action: StrayAction = StrayAction.NOTHING
    grace_seconds: float = 600.0
    exempt: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Stray:
    """A process that uses a device without a lease of it.

    Attributes:
        device_id: the device.
        pid: the process; None where that may not be shown.
        user: its login; empty where that cannot be seen.
        program: the name of its program; empty where that cannot be seen.
        command: what it runs, in one line: its program alone for those who may not see
            more, as arguments may hold what is nobody else's business.
        memory_bytes: what it holds of the device; None where the driver keeps that to
            itself.
        since: when the process started, in seconds since the epoch; None where that
            cannot be seen.
        kernel_id: the kernel that it is, or that has started it, as its environment
            says; empty for none.
        exemption: why nobody ends it.
        ends_at: when it will be ended, in seconds since the epoch; None for never.
    """

    device_id: str
    pid: int | None
    user: str = ""
    program: str = ""
    command: str = ""
    memory_bytes: int | None = None
    since: float | None = None
    kernel_id: str = ""
    exemption: Exemption = Exemption.NONE
    ends_at: float | None = None
