"""Rules of health that hold for devices of every maker: when a temperature or a power
limit is worth a warning or takes a device out of placement, and what holds on while a
driver is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from .condition import Severity
from .device_health import (
    DeviceFault,
    HealthCode,
    HealthCondition,
    health_condition,
)

SHUTDOWN_MARGIN = 2
"""So few degrees below its shutdown a device takes no more work: that would be lost."""


def temperature_conditions(
    to_slowdown: int | None, to_shutdown: int | None, *, was_critical: bool
) -> Iterator[HealthCondition]:
    """What the temperature of a device means.

    Args:
        to_slowdown, to_shutdown: how many degrees hotter it may get before its hardware
            slows it down, and before it switches itself off; None for unknown.
        was_critical: it was about to switch itself off, and was not seen below its
            slowdown since.
    """
    is_hot = to_slowdown is not None and to_slowdown <= 0
    is_at_its_end = to_shutdown is not None and to_shutdown <= SHUTDOWN_MARGIN
    if is_at_its_end or (was_critical and is_hot):
        yield health_condition(
            HealthCode.TEMPERATURE_CRITICAL,
            "is about to switch itself off, as it is too hot; see to its cooling",
        )
    elif is_hot:
        yield health_condition(
            HealthCode.TEMPERATURE_HIGH,
            "is as hot as its hardware allows; see to its cooling",
        )


def power_conditions(
    usual: float | None, limit: float | None, enforced: float | None
) -> Iterator[HealthCondition]:
    """What the power limits of a device mean, all in watts.

    Args:
        usual: what is usual for it.
        limit: what an administrator allows it.
        enforced: what it is held to, by whoever allows the least.
    """
    held = enforced or limit
    if usual is None or held is None or held >= usual:
        return
    sentence = f"is held to {held:.0f} of its usual {usual:.0f} W"
    is_chosen = limit is not None and held >= limit
    if is_chosen:
        message = f"{sentence} by its power limit"
        severity = Severity.INFO
    else:
        message = f"{sentence}, less than its power limit; see to its power"
        severity = Severity.WARNING
    yield health_condition(HealthCode.POWER_LIMITED, message, severity=severity)


def held_conditions(
    recorded: Mapping[HealthCode, DeviceFault],
    conditions: Iterable[HealthCondition],
    is_unknown: Callable[[HealthCode], bool],
) -> Iterator[HealthCondition]:
    """Faults that are written down of a device and of which its driver tells nothing now:
    what cannot be seen has not recovered.

    Args:
        recorded: what is written down.
        conditions: what its driver tells.
        is_unknown: whether the driver does not tell what conditions of a code are read
            from.
    """
    told = {condition.code for condition in conditions}
    for code in recorded.keys() - told:
        if is_unknown(code):
            yield health_condition(code, recorded[code].message)
