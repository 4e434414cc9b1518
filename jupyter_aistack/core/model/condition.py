"""What the user of a lease should know about it, one condition for each kind.

A lease carries at most one condition of each kind, the gravest first. The component
that finds something out sets the conditions of its own kinds and clears them again, so
that nothing hides what another component has found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class ConditionKind(StrEnum):
    """What a condition is about; the order is that of precedence, gravest first."""

    DEVICE_UNHEALTHY = "DeviceUnhealthy"  # its GPU itself is sick
    DEVICE_FAULT = "DeviceFault"  # what its GPU is shared by failed for all
    MEMORY_EXCEEDED = "MemoryExceeded"  # its processes hold more than it has
    NOT_ENFORCED = "NotEnforced"  # its process sees more than was granted
    FAILED = "Failed"  # why it ended as failed
    LIMIT_LOWERED = "LimitLowered"  # it holds more than it may since others came
    MEMORY_PRESSURE = "MemoryPressure"  # its processes are near its memory
    DEVICE_DRAINED = "DeviceDrained"  # nothing new is granted on its device
    MEMORY_UNKNOWN = "MemoryUnknown"  # what they hold cannot be measured
    NOT_VERIFIED = "NotVerified"  # what its process sees could not be checked
    LIMIT_PENDING = "LimitPending"  # its limit of now holds from its next start on
    ENFORCEMENT_REDUCED = "EnforcementReduced"  # held at a lower level than available
    NOTE = "Note"  # anything else, e.g. until when it is lent

    @property
    def label(self) -> str:
        """What comes before the message where people read it; empty for none."""
        return _LABELS[self]

    @property
    def severity(self) -> Severity:
        """How grave conditions of this kind are."""
        return _SEVERITIES.get(self, Severity.INFO)


class Severity(StrEnum):
    """How much a condition concerns the user."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LABELS = {
    ConditionKind.DEVICE_UNHEALTHY: "on a sick GPU",
    ConditionKind.DEVICE_FAULT: "on a GPU that failed",
    ConditionKind.MEMORY_EXCEEDED: "over its memory",
    ConditionKind.NOT_ENFORCED: "not enforced",
    ConditionKind.FAILED: "",
    ConditionKind.LIMIT_LOWERED: "above its lowered limit",
    ConditionKind.MEMORY_PRESSURE: "near its memory",
    ConditionKind.DEVICE_DRAINED: "",
    ConditionKind.MEMORY_UNKNOWN: "memory unknown",
    ConditionKind.NOT_VERIFIED: "could not be verified",
    ConditionKind.LIMIT_PENDING: "another limit",
    ConditionKind.ENFORCEMENT_REDUCED: "enforced at a lower level than available",
    ConditionKind.NOTE: "",
}
_SEVERITIES = {
    ConditionKind.DEVICE_UNHEALTHY: Severity.ERROR,
    ConditionKind.DEVICE_FAULT: Severity.ERROR,
    ConditionKind.MEMORY_EXCEEDED: Severity.ERROR,
    ConditionKind.NOT_ENFORCED: Severity.ERROR,
    ConditionKind.FAILED: Severity.ERROR,
    ConditionKind.LIMIT_LOWERED: Severity.WARNING,
    ConditionKind.MEMORY_PRESSURE: Severity.WARNING,
    ConditionKind.DEVICE_DRAINED: Severity.WARNING,
}
_PRECEDENCE = {kind: rank for rank, kind in enumerate(ConditionKind)}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that the user of a lease should know.

    Attributes:
        kind: what it is about.
        severity: how much it concerns the user.
        message: one sentence for people, without a word for the kind.
        since: when it came to be so, in seconds since the epoch.
    """

    kind: ConditionKind
    severity: Severity
    message: str
    since: float

    @property
    def text(self) -> str:
        """The message after the label of its kind: ``near its memory: ...``."""
        label = self.kind.label
        if label:
            return f"{label}: {self.message}"
        return self.message


Conditions = tuple[Condition, ...]
"""At most one of each kind, in order of precedence."""


def new_condition(kind: ConditionKind, message: str, since: float) -> Condition:
    """A condition as grave as its kind."""
    return Condition(kind=kind, severity=kind.severity, message=message, since=since)


def conditions_text(conditions: Iterable[Condition]) -> str:
    """All conditions in words, the gravest first; empty for none."""
    return "; ".join(condition.text for condition in conditions)


def condition_of(conditions: Conditions, kind: ConditionKind) -> Condition | None:
    """The condition of a kind; None where there is none."""
    return next((each for each in conditions if each.kind is kind), None)


def worst(conditions: Conditions) -> Condition | None:
    """The gravest condition; None for none."""
    if conditions:
        return conditions[0]
    return None


def with_condition(conditions: Conditions, condition: Condition) -> Conditions:
    """The conditions, with `condition` in place of the condition of its kind.

    A condition that held before has held since then, whatever its words are now.
    """
    known = condition_of(conditions, condition.kind)
    if known is not None:
        condition = replace(condition, since=known.since)
    others = without_condition(conditions, condition.kind)
    return ordered((*others, condition))


def without_condition(conditions: Conditions, *kinds: ConditionKind) -> Conditions:
    """The conditions without those of these kinds."""
    return tuple(each for each in conditions if each.kind not in kinds)


def ordered(conditions: Iterable[Condition]) -> Conditions:
    """Conditions of different kinds in order of precedence."""
    return tuple(sorted(conditions, key=lambda each: _PRECEDENCE[each.kind]))


@dataclass(frozen=True, kw_only=True)
class ConditionUpdate:
    """What one part changes about a lease's conditions.

    Applied where the lease is written, so that what others have set meanwhile stays.

    Attributes:
        put: conditions that hold now.
        clear: kinds that hold no longer, unless they are among `put`.
    """

    put: Conditions = ()
    clear: frozenset[ConditionKind] = frozenset()

    @property
    def text(self) -> str:
        """The gravest condition it puts, in words; empty where it puts none."""
        gravest = worst(ordered(self.put))
        if gravest is not None:
            return gravest.text
        return ""

    def apply(self, conditions: Conditions) -> Conditions:
        """The conditions of a lease after this update."""
        replaced = {condition.kind for condition in self.put}
        kept = without_condition(conditions, *(self.clear - replaced))
        for condition in self.put:
            kept = with_condition(kept, condition)
        return kept
