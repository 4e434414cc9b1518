"""What the driver is asked about the health of a GPU, in three paces: what never changes,
what changes within seconds, and counters that move once in a GPU's life.

A figure that the driver does not have, or gives as one of its values for "not available",
is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jupyter_aistack.exceptions import ProviderError

from .nvml import NVML

FIELD_SHUTDOWN_LIMIT = 193
FIELD_SLOWDOWN_LIMIT = 194
FIELD_RECOVERY_ACTION = 230
"""``NVML_FI_DEV_…``: the margins (T.Limit) at which a GPU of Ada and later is slowed down
and switches itself off, and what the driver asks for to recover it.
"""

UNCORRECTED, CORRECTED = 1, 0
VOLATILE = 0
THRESHOLD_SHUTDOWN, THRESHOLD_SLOWDOWN = 0, 1
HOTTEST = 250
"""No sensor of a GPU shows so many degrees Celsius."""
STRONGEST = 100_000_000
"""No GPU may draw so many milliwatts."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What does not change of a GPU.

    Attributes:
        slowdown_celsius, shutdown_celsius: where its hardware slows it down, and where
            it switches itself off.
        slowdown_margin, shutdown_margin: the same as margins, in degrees; below zero.
        default_watts: the power limit that is usual for it.
    """

    slowdown_celsius: int | None
    shutdown_celsius: int | None
    slowdown_margin: int | None
    shutdown_margin: int | None
    default_watts: float | None


@dataclass(frozen=True, kw_only=True)
class State:
    """What may change within seconds.

    Attributes:
        recovery: the number of the recovery that the driver asks for, 0 for none.
        clock_reasons: the bit mask of what holds the clocks down.
        temperature_celsius: of the GPU.
        margin: how many degrees it may get hotter before it is too hot.
    """

    recovery: int | None = None
    clock_reasons: int | None = None
    temperature_celsius: int | None = None
    margin: int | None = None


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What changes hardly ever: error counters, and the limits that people set."""

    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    rows_corrected: int | None = None
    rows_uncorrected: int | None = None
    is_remap_pending: bool | None = None
    is_remap_failed: bool | None = None
    is_retirement_pending: bool | None = None
    limit_watts: float | None = None
    enforced_watts: float | None = None


class HealthReader:
    """Asks the driver; a question that fails has no answer, and hides no other.

    Args:
        nvml: the connection to the driver.
    """

    def __init__(self, nvml: NVML) -> None:
        self._nvml = nvml

    def limits(self, handle: Any) -> Limits:
        fields = [FIELD_SLOWDOWN_LIMIT, FIELD_SHUTDOWN_LIMIT]
        slowdown, shutdown = self._fields(handle, fields, is_signed=True)
        return Limits(
            slowdown_celsius=self._threshold(handle, THRESHOLD_SLOWDOWN),
            shutdown_celsius=self._threshold(handle, THRESHOLD_SHUTDOWN),
            slowdown_margin=_margin(slowdown),
            shutdown_margin=_margin(shutdown),
            default_watts=self._watts(
                handle, "nvmlDeviceGetPowerManagementDefaultLimit"
            ),
        )

    def state(self, handle: Any, limits: Limits) -> State:
        """Its margin is asked for where the driver tells its limits as margins."""
        has_margins = limits.shutdown_margin is not None
        margin = None
        if has_margins:
            margin = self._ask("nvmlDeviceGetMarginTemperature", handle)
        (recovery,) = self._fields(handle, [FIELD_RECOVERY_ACTION])
        return State(
            recovery=recovery,
            clock_reasons=self._clock_reasons(handle),
            temperature_celsius=_degrees(
                self._ask("nvmlDeviceGetTemperature", handle, 0)
            ),
            margin=_margin(margin),
        )

    def counters(self, handle: Any) -> Counters:
        rows = self._ask("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
        retirement = self._ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        return Counters(
            ecc_corrected=self._ecc(handle, CORRECTED),
            ecc_uncorrected=self._ecc(handle, UNCORRECTED),
            rows_corrected=rows[0],
            rows_uncorrected=rows[1],
            is_remap_pending=_flag(rows[2]),
            is_remap_failed=_flag(rows[3]),
            is_retirement_pending=_flag(retirement),
            limit_watts=self._watts(handle, "nvmlDeviceGetPowerManagementLimit"),
            enforced_watts=self._watts(handle, "nvmlDeviceGetEnforcedPowerLimit"),
        )

    def millijoules(self, handle: Any) -> int | None:
        """The energy counter, which begins anew with a reset."""
        counted = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        return None if counted is None else int(counted)

    def _fields(
        self, handle: Any, fields: list[int], *, is_signed: bool = False
    ) -> list[int | None]:
        values = self._ask("nvmlDeviceGetFieldValues", handle, fields)
        if not values:
            return [None] * len(fields)
        return [
            None
            if value.nvmlReturn
            else int(value.value.siVal if is_signed else value.value.uiVal)
            for value in values
        ]

    def _threshold(self, handle: Any, kind: int) -> int | None:
        return _degrees(self._ask("nvmlDeviceGetTemperatureThreshold", handle, kind))

    def _watts(self, handle: Any, function: str) -> float | None:
        milliwatts = self._ask(function, handle)
        is_known = milliwatts is not None and 0 < milliwatts < STRONGEST
        return milliwatts / 1000 if is_known else None

    def _ecc(self, handle: Any, kind: int) -> int | None:
        count = self._ask("nvmlDeviceGetTotalEccErrors", handle, kind, VOLATILE)
        return None if count is None else int(count)

    def _clock_reasons(self, handle: Any) -> int | None:
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:  # its name until driver 535
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return None if reasons is None else int(reasons)

    def _ask(self, function: str, *args: Any) -> Any:
        try:
            return self._nvml.query(function, *args, default=None)
        except ProviderError:
            return None


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _degrees(value: Any) -> int | None:
    """A temperature; the driver gives 0 or a huge number where it has none."""
    return int(value) if value is not None and 0 < value < HOTTEST else None


def _margin(value: Any) -> int | None:
    return int(value) if value is not None and abs(value) < HOTTEST else None
