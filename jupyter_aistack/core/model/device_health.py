"""How a device is, as its driver's error counters and events tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HealthCode(StrEnum):
    """What is wrong with a device, the gravest first."""

    FELL_OFF_BUS = "FellOffBus"
    RECOVERY_NEEDED = "RecoveryNeeded"  # the driver asks for a reset or a reboot
    XID_ERROR = "XidError"  # an error after which the device is not to be trusted
    ROW_REMAP_FAILURE = "RowRemapFailure"
    ROW_REMAP_PENDING = "RowRemapPending"
    PAGE_RETIREMENT_PENDING = "PageRetirementPending"
    ECC_UNCORRECTED = "EccUncorrected"
    THERMAL_SLOWDOWN = "ThermalSlowdown"
    POWER_BRAKE = "PowerBrake"

    @property
    def is_fatal(self) -> bool:
        """Whether nothing is to be granted on such a device."""
        return self not in _SLOW


_SLOW = frozenset({HealthCode.THERMAL_SLOWDOWN, HealthCode.POWER_BRAKE})


@dataclass(frozen=True, kw_only=True)
class HealthCondition:
    """One thing that is wrong with a device.

    Attributes:
        code: what it is about.
        message: one sentence that reads on after the device's name.
    """

    code: HealthCode
    message: str


@dataclass(frozen=True, kw_only=True)
class DeviceHealth:
    """The health of a device at one moment; a figure that is None is not known.

    Attributes:
        conditions: what is wrong, the gravest first.
        xid: the code of the last Xid error (NVIDIA's "Xid Errors" catalogue); 0 for
            none since the device is watched.
        ecc_corrected, ecc_uncorrected: memory errors since the driver was loaded or the
            device was reset.
        rows_corrected, rows_uncorrected: memory rows remapped for such errors, ever.
        is_remap_pending, is_remap_failed: a row waits for a reset to be remapped, or
            could not be remapped.
        clock_reasons: NVML's bit mask of what holds the clocks down.
        temperature_celsius: of the device.
    """

    conditions: tuple[HealthCondition, ...] = ()
    xid: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    rows_corrected: int | None = None
    rows_uncorrected: int | None = None
    is_remap_pending: bool | None = None
    is_remap_failed: bool | None = None
    clock_reasons: int | None = None
    temperature_celsius: int | None = None

    @property
    def problem(self) -> str:
        """Why nothing is to be granted on it; empty where it can be used."""
        return "; ".join(c.message for c in self.conditions if c.code.is_fatal)

    @property
    def advice(self) -> str:
        """What else an administrator should know of it."""
        return "; ".join(c.message for c in self.conditions if not c.code.is_fatal)


UNKNOWN_HEALTH = DeviceHealth()
