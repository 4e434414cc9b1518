"""What the readings of a GPU mean: which are errors that take it out of placement, and
which are worth a warning.

What is done about memory errors follows NVIDIA's "GPU Memory Error Management" and the
health checks of DCGM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jupyter_aistack.core.model.device_health import (
    HealthCode,
    HealthCondition,
    health_condition,
)
from jupyter_aistack.core.model.health_rules import (
    power_conditions,
    temperature_conditions,
)

from .health_readings import Counters, Limits, State

FATAL_XIDS = {
    48: "an uncorrectable memory error",
    62: "its micro-controller stopped",
    64: "a memory row could not be remapped",
    74: "an error of its NVLink",
    79: "it fell off the bus",
    95: "a memory error that could not be contained",
    110: "a security fault",
    119: "its firmware does not answer",
    120: "its firmware failed",
    140: "a memory error that was not recovered from",
    143: "it could not be initialized",
}
"""Xid errors of the GPU itself. All others are of programs (13, 31, 43, 45, 94 ...) or
say what the driver tells as a state as well (63, 154).
"""

RECOVERY_ACTIONS = {
    1: "needs a reset; end its processes, then reset it",
    2: "needs the host to be rebooted",
    3: "needs its NVLink peers to be drained",
    4: "needs a reset once its processes have ended",
    6: "needs a reset of its bus",
    7: "needs the system to be rebooted",
}
"""``nvmlDeviceGpuRecoveryAction_t``, reading on after the name of a GPU."""

NO_RECOVERY = frozenset({0, 5})
"""What is no reason to close a GPU: none, and the recovery of the domain (IMEX) in which
GPUs of several hosts share memory.
"""

HARDWARE_REASON = 0x08
SOFTWARE_THERMAL_REASON = 0x20
THERMAL_REASON = 0x40
POWER_BRAKE_REASON = 0x80
"""``nvmlClocksEventReason…``: of the hardware, which halves the clocks or more, and of the
driver, which keeps the GPU below its highest working temperature. Its power cap (0x4) is
no reason to warn: it is met by every GPU that is fully at work.
"""

_OF_COUNTERS = {
    HealthCode.ROW_REMAP_FAILURE: "is_remap_failed",
    HealthCode.ROW_REMAP_PENDING: "is_remap_pending",
    HealthCode.PAGE_RETIREMENT_PENDING: "is_retirement_pending",
    HealthCode.ECC_UNCORRECTED: "ecc_uncorrected",
}


@dataclass(frozen=True, kw_only=True)
class Readings:
    """All that was read of a GPU, each at its own pace.

    Attributes:
        was_critical: it was about to switch itself off, and was not seen to be well
            below that since.
    """

    limits: Limits
    state: State
    counters: Counters
    was_critical: bool = False


def conditions_of(readings: Readings) -> Iterator[HealthCondition]:
    """What is to be known of a GPU by its readings."""
    yield from _of_driver(readings.state)
    yield from _of_memory(readings.counters)
    to_slowdown, to_shutdown = _degrees_left(readings)
    yield from temperature_conditions(
        to_slowdown, to_shutdown, was_critical=readings.was_critical
    )
    yield from _of_clocks(readings.state.clock_reasons or 0)
    counters = readings.counters
    yield from power_conditions(
        readings.limits.default_watts, counters.limit_watts, counters.enforced_watts
    )


def is_unknown(code: HealthCode, readings: Readings) -> bool:
    """Whether the driver does not tell now what conditions of a code are read from: then
    one that is written down holds on.
    """
    if code is HealthCode.RECOVERY_NEEDED:
        return readings.state.recovery is None
    if code is HealthCode.TEMPERATURE_CRITICAL:
        return _degrees_left(readings)[1] is None
    name = _OF_COUNTERS.get(code)
    return name is not None and getattr(readings.counters, name) is None


def xid_message(code: int | None) -> str:
    """What is said of a fatal Xid error; None where its number is lost."""
    if code is None:
        return "reported an Xid error; reset it"
    what = FATAL_XIDS.get(code, "an error of the GPU")
    return f"reported Xid {code} ({what}); reset it"


def _of_driver(state: State) -> Iterator[HealthCondition]:
    action = state.recovery
    if action is not None and action not in NO_RECOVERY:
        unnamed = f"needs a recovery (action {action}); see its driver's documentation"
        message = RECOVERY_ACTIONS.get(action, unnamed)
        yield health_condition(HealthCode.RECOVERY_NEEDED, message)


def _of_memory(counters: Counters) -> Iterator[HealthCondition]:
    if counters.is_remap_failed:
        yield health_condition(
            HealthCode.ROW_REMAP_FAILURE,
            "has a memory row that could not be remapped; have it replaced",
        )
    if counters.is_remap_pending:
        yield health_condition(
            HealthCode.ROW_REMAP_PENDING,
            "has a faulty memory row that a reset will remap; reset it",
        )
    if counters.is_retirement_pending:
        yield health_condition(
            HealthCode.PAGE_RETIREMENT_PENDING,
            "has a faulty memory page that a reset will retire; reset it",
        )
    # Where rows can be remapped, errors are contained, and only what waits for a reset
    # counts; elsewhere each is a reason for one.
    can_remap = counters.is_remap_pending is not None
    if not can_remap and counters.ecc_uncorrected:
        yield health_condition(
            HealthCode.ECC_UNCORRECTED,
            "has had an uncorrectable memory error; reset it",
        )


def _degrees_left(readings: Readings) -> tuple[int | None, int | None]:
    """How much hotter a GPU may get before it is slowed down, and before it switches
    itself off.
    """
    limits = readings.limits
    state = readings.state
    if state.margin is not None and limits.shutdown_margin is not None:
        to_shutdown = state.margin - limits.shutdown_margin
        if limits.slowdown_margin is None:
            return None, to_shutdown
        return state.margin - limits.slowdown_margin, to_shutdown
    degrees = state.temperature_celsius
    return (
        _difference(limits.slowdown_celsius, degrees),
        _difference(limits.shutdown_celsius, degrees),
    )


def _difference(limit: int | None, degrees: int | None) -> int | None:
    return None if limit is None or degrees is None else limit - degrees


def _of_clocks(reasons: int) -> Iterator[HealthCondition]:
    if reasons & (THERMAL_REASON | SOFTWARE_THERMAL_REASON):
        yield health_condition(
            HealthCode.THERMAL_SLOWDOWN,
            "runs slowly, as it is too hot; see to its cooling",
        )
    if reasons & POWER_BRAKE_REASON:
        yield health_condition(
            HealthCode.POWER_BRAKE,
            "runs slowly, as its power supply brakes it; see to its power",
        )
    is_explained = reasons & (THERMAL_REASON | POWER_BRAKE_REASON)
    if reasons & HARDWARE_REASON and not is_explained:
        yield health_condition(
            HealthCode.HARDWARE_SLOWDOWN,
            "runs slowly, as its hardware slows it down; see to its cooling and power",
        )
