"""Devices that somebody has taken out of placement by hand: nothing new is granted on
them, and what is leased there goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from .condition import Condition, ConditionKind, new_condition


class DrainKind(StrEnum):
    """Why a device is out of placement by hand."""

    DRAIN = "drain"  # for work on it, often until a known time
    QUARANTINE = "quarantine"  # it is not trusted, until somebody says that it is


@dataclass(frozen=True, kw_only=True)
class Drain:
    """Nothing new is granted on a device.

    Attributes:
        device_id: the device.
        device_name: what people call it.
        host: id of its host in its present run.
        kind: why.
        reason: the same in words, for people; may be empty.
        until: when it ends by itself, in seconds since the epoch; None for when somebody
            ends it.
        since: when it began.
        created_by: the login of who began it.
    """

    device_id: str
    device_name: str = ""
    host: str
    kind: DrainKind = DrainKind.DRAIN
    reason: str = ""
    until: float | None = None
    since: float
    created_by: str = ""

    def is_over(self, now: float) -> bool:
        """Whether its time has passed."""
        return self.until is not None and now >= self.until

    @property
    def text(self) -> str:
        """What reads on after the device's name."""
        text = "is in quarantine"
        if self.kind is DrainKind.DRAIN:
            text = "is being drained"
        if self.until is not None:
            text = f"{text} until {_utc(self.until)}"
        if self.reason:
            text = f"{text}: {self.reason}"
        return text


def drained_condition(drain: Drain, now: float) -> Condition:
    """What those who hold a part of the device are told."""
    message = (
        f"{drain.device_name} {drain.text}; this lease goes on, and nothing new is "
        "granted there"
    )
    return new_condition(ConditionKind.DEVICE_DRAINED, message, now)


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
