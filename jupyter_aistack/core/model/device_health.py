"""How a device is, as its driver's error counters, sensors and events tell.

What is wrong is a list of conditions with a code, a severity and a time, as Kubernetes
has them of its nodes; nothing is decided by their sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .condition import Severity


class HealthCode(StrEnum):
    """What a condition of a device is about, the gravest first."""

    FELL_OFF_BUS = "FellOffBus"
    RECOVERY_NEEDED = "RecoveryNeeded"  # the driver asks for a reset or a reboot
    XID_ERROR = "XidError"  # an error after which the device is not to be trusted
    ROW_REMAP_FAILURE = "RowRemapFailure"
    ROW_REMAP_PENDING = "RowRemapPending"
    PAGE_RETIREMENT_PENDING = "PageRetirementPending"
    ECC_UNCORRECTED = "EccUncorrected"
    BAD_PAGES = "BadPages"  # so much memory is lost that its maker replaces it
    POWER_MISSING = "PowerMissing"  # its power cables do not supply it
    INTERRUPT_PROBLEM = "InterruptProblem"
    TEMPERATURE_CRITICAL = "TemperatureCritical"  # about to switch itself off
    TEMPERATURE_HIGH = "TemperatureHigh"  # where its hardware slows it down
    THERMAL_SLOWDOWN = "ThermalSlowdown"
    POWER_BRAKE = "PowerBrake"
    HARDWARE_SLOWDOWN = "HardwareSlowdown"  # by its hardware, which does not say why
    POWER_LIMITED = "PowerLimited"  # to less than is usual for it
    EVENTS_MISSING = "EventsMissing"  # its driver reports no errors as they happen

    @property
    def severity(self) -> Severity:
        """How grave conditions of this code are; ``error`` takes the device out of
        placement, ``warning`` and ``info`` do not.
        """
        return _SEVERITIES.get(self, Severity.ERROR)


_SEVERITIES = {
    HealthCode.TEMPERATURE_HIGH: Severity.WARNING,
    HealthCode.THERMAL_SLOWDOWN: Severity.WARNING,
    HealthCode.POWER_BRAKE: Severity.WARNING,
    HealthCode.HARDWARE_SLOWDOWN: Severity.WARNING,
    HealthCode.POWER_LIMITED: Severity.WARNING,
    HealthCode.EVENTS_MISSING: Severity.INFO,
}
_PRECEDENCE = {code: rank for rank, code in enumerate(HealthCode)}


@dataclass(frozen=True, kw_only=True)
class HealthCondition:
    """One thing that is to be known of a device.

    Attributes:
        code: what it is about.
        severity: whether nothing is to be granted on it (``error``), or people should
            know of it.
        message: one sentence that reads on after the device's name.
        since: when it came to be so, in seconds since the epoch.
        evidence: what its provider needs to tell, in another process, when it is over;
            empty where the driver tells that at any time.
    """

    code: HealthCode
    severity: Severity
    message: str
    since: float = 0.0
    evidence: str = field(default="", compare=False)


HealthConditions = tuple[HealthCondition, ...]
"""At most one of each code, the gravest first."""


@dataclass(frozen=True, kw_only=True)
class DeviceFault:
    """A condition that took a device out of placement, as it is written down: it lasts
    until the device is seen to have recovered, whoever is started again meanwhile.

    Attributes:
        host: id of the device's host in its present run.
        device_id: the device.
        code, message, since, evidence: as in `HealthCondition`.
    """

    host: str
    device_id: str
    code: HealthCode
    message: str
    since: float
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class HealthFigures:
    """What a driver counts and measures of a device's health; None is not known.

    Attributes:
        xid: the code of the last Xid error (NVIDIA's "Xid Errors" catalogue); 0 for
            none since the device is watched.
        ecc_corrected, ecc_uncorrected: memory errors since the driver was loaded or the
            device was reset.
        rows_corrected, rows_uncorrected: memory rows remapped for such errors, ever.
        is_remap_pending, is_remap_failed: a row waits for a reset to be remapped, or
            could not be remapped.
        clock_reasons: NVML's bit mask of what holds the clocks down.
        temperature_celsius: of the device.
        slowdown_celsius, shutdown_celsius: where its hardware slows it down, and where
            it switches itself off.
        power_limit_watts: what an administrator allows it.
        enforced_limit_watts: what it is held to, by whoever allows the least.
        default_limit_watts: what is usual for it.
    """

    xid: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    rows_corrected: int | None = None
    rows_uncorrected: int | None = None
    is_remap_pending: bool | None = None
    is_remap_failed: bool | None = None
    clock_reasons: int | None = None
    temperature_celsius: int | None = None
    slowdown_celsius: int | None = None
    shutdown_celsius: int | None = None
    power_limit_watts: float | None = None
    enforced_limit_watts: float | None = None
    default_limit_watts: float | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceHealth:
    """The health of a device at one moment.

    Attributes:
        conditions: what is to be known of it, the gravest first.
        figures: what they were read from. No part of what the device is: they change
            all the time.
    """

    conditions: HealthConditions = ()
    figures: HealthFigures = field(default=HealthFigures(), compare=False)

    @property
    def errors(self) -> HealthConditions:
        """Why nothing is to be granted on it."""
        return tuple(c for c in self.conditions if c.severity is Severity.ERROR)

    @property
    def problem(self) -> str:
        """Those in words; empty where it can be used."""
        return "; ".join(condition.message for condition in self.errors)


UNKNOWN_HEALTH = DeviceHealth()


def health_condition(
    code: HealthCode,
    message: str,
    *,
    severity: Severity | None = None,
    evidence: str = "",
) -> HealthCondition:
    """A condition as grave as its code, unless it is said to be less so."""
    return HealthCondition(
        code=code,
        severity=code.severity if severity is None else severity,
        message=message,
        evidence=evidence,
    )


def faults_by_device(
    faults: Iterable[DeviceFault],
) -> dict[str, dict[HealthCode, DeviceFault]]:
    """The faults of each device that has any, by its id and by their code."""
    by_device: dict[str, dict[HealthCode, DeviceFault]] = {}
    for fault in faults:
        by_device.setdefault(fault.device_id, {})[fault.code] = fault
    return by_device


def dated(
    conditions: Iterable[HealthCondition],
    known: Mapping[HealthCode, float],
    now: float,
) -> HealthConditions:
    """The conditions in order of precedence, each with the time since when it holds.

    Args:
        known: since when conditions were known to hold, by their code.
        now: since when the others do, in seconds since the epoch.
    """
    ordered = sorted(conditions, key=lambda condition: _PRECEDENCE[condition.code])
    return tuple(replace(c, since=known.get(c.code, now)) for c in ordered)
