"""Whether an AMD GPU can be trusted: memory errors and bad pages (RAS), its temperature
and power limits, and what slows it down.

AMD's library tells all of it as states, which are looked at every ten seconds, and what
moves slowly every minute: it measures for a tenth of a second what slows a GPU down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.device_health import (
    DeviceFault,
    DeviceHealth,
    HealthCode,
    HealthCondition,
    HealthConditions,
    HealthFigures,
    dated,
    faults_by_device,
    health_condition,
)
from jupyter_aistack.core.model.health_rules import (
    held_conditions,
    power_conditions,
    temperature_conditions,
)
from jupyter_aistack.exceptions import ProviderError

from .amdsmi import AMDSMI

STATE_SECONDS = 10.0
COUNTERS_SECONDS = 60.0
HOTTEST_SPOT = "HOTSPOT"
PAGE_PENDING, PAGE_UNRESERVABLE = 1, 2
"""``amdsmi_memory_page_status_t``: a bad page that is taken out of use when the driver is
loaded next, or that cannot be.
"""
MICROWATTS_FROM = 100_000
"""Limits above are in microwatts, as the library has them since ROCm 6; before it had
them in watts."""
STRONGEST = 100_000.0
"""No GPU may draw so many watts."""
_THERMAL = (
    "active_prochot_thrm",
    "active_socket_thrm",
    "active_vr_thrm",
    "active_hbm_thrm",
)


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Where the hottest spot of a GPU is, and may be, in degrees Celsius; None for
    unknown.
    """

    now: int | None = None
    slowdown: int | None = None
    shutdown: int | None = None

    def left(self, limit: int | None) -> int | None:
        """How much hotter it may get to a limit."""
        return None if limit is None or self.now is None else limit - self.now


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What moves slowly; None for unknown.

    Attributes:
        corrected, uncorrected: memory errors since the driver was loaded.
        pending_pages, lost_pages: bad pages that wait to be taken out of use, and that
            cannot be.
        bad_pages: all bad pages.
        most_bad_pages: so many its maker allows.
        is_throttled: heat slows it down.
        limit_watts, default_watts: its power limit, and what is usual.
    """

    corrected: int | None = None
    uncorrected: int | None = None
    pending_pages: int | None = None
    lost_pages: int | None = None
    bad_pages: int | None = None
    most_bad_pages: int | None = None
    is_throttled: bool = False
    limit_watts: float | None = None
    default_watts: float | None = None


@dataclass(kw_only=True)
class _GPU:
    """What is known of one GPU; `restored` is what is written down of it."""

    restored: dict[HealthCode, DeviceFault] = field(default_factory=dict)
    temperature: Temperature = field(default_factory=Temperature)
    counters: Counters = field(default_factory=Counters)
    temperature_at: float = -math.inf
    counters_at: float = -math.inf
    conditions: HealthConditions = ()

    @property
    def is_sick(self) -> bool:
        return bool(self.restored or DeviceHealth(conditions=self.conditions).errors)


class HealthMonitor:
    """Watches the health of AMD GPUs.

    Args:
        smi: the connection to the library.
        clock: seconds since the epoch.
    """

    def __init__(self, smi: AMDSMI, clock: Callable[[], float]) -> None:
        self._smi = smi
        self._clock = clock
        self._gpus: dict[str, _GPU] = {}

    def restore(self, faults: Iterable[DeviceFault]) -> None:
        """Take over what is written down of GPUs."""
        recorded = faults_by_device(faults)
        for device_id in self._gpus.keys() | recorded.keys():
            self._of(device_id).restored = recorded.get(device_id, {})

    def unanswered(self, device_id: str, problem: str) -> DeviceHealth:
        """The health of a GPU that does not answer."""
        lost = health_condition(HealthCode.FELL_OFF_BUS, problem)
        return DeviceHealth(conditions=self._dated(self._of(device_id), [lost]))

    def inspect(self, handle: Any, device_id: str) -> DeviceHealth:
        """The health of a GPU that answers."""
        gpu = self._of(device_id)
        now = self._clock()
        if gpu.is_sick or not 0 <= now - gpu.temperature_at < STATE_SECONDS:
            gpu.temperature = self._temperature(handle)
            gpu.temperature_at = now
        if gpu.is_sick or not 0 <= now - gpu.counters_at < COUNTERS_SECONDS:
            gpu.counters = self._counters(handle)
            gpu.counters_at = now
        conditions = list(_conditions_of(gpu))
        conditions += held_conditions(
            gpu.restored, conditions, lambda code: _is_unknown(code, gpu)
        )
        return DeviceHealth(
            conditions=self._dated(gpu, conditions), figures=_figures(gpu)
        )

    def _of(self, device_id: str) -> _GPU:
        return self._gpus.setdefault(device_id, _GPU())

    def _dated(
        self, gpu: _GPU, conditions: Iterable[HealthCondition]
    ) -> HealthConditions:
        known = {each.code: each.since for each in gpu.conditions}
        written = {code: fault.since for code, fault in gpu.restored.items()}
        gpu.conditions = dated(conditions, known | written, self._clock())
        return gpu.conditions

    # -- asking ------------------------------------------------------------------------

    def _temperature(self, handle: Any) -> Temperature:
        return Temperature(
            now=self._degrees(handle, "CURRENT"),
            slowdown=self._degrees(handle, "CRITICAL"),
            shutdown=self._degrees(handle, "EMERGENCY"),
        )

    def _counters(self, handle: Any) -> Counters:
        errors = self._ask("amdsmi_get_gpu_total_ecc_count", handle) or {}
        pages = self._ask("amdsmi_get_gpu_bad_page_info", handle)
        states = None if pages is None else [page["status"] for page in pages]
        slowed = self._ask("amdsmi_get_violation_status", handle) or {}
        power = self._ask("amdsmi_get_power_cap_info", handle) or {}
        return Counters(
            corrected=errors.get("correctable_count"),
            uncorrected=errors.get("uncorrectable_count"),
            pending_pages=None if states is None else states.count(PAGE_PENDING),
            lost_pages=None if states is None else states.count(PAGE_UNRESERVABLE),
            bad_pages=None if states is None else len(states),
            most_bad_pages=self._ask("amdsmi_get_gpu_bad_page_threshold", handle),
            # What it cannot tell is the word N/A.
            is_throttled=any(slowed.get(name) is True for name in _THERMAL),
            limit_watts=_watts(power.get("power_cap")),
            default_watts=_watts(power.get("default_power_cap")),
        )

    def _degrees(self, handle: Any, metric: str) -> int | None:
        try:
            return self._smi.temperature(handle, HOTTEST_SPOT, metric)
        except ProviderError:
            return None

    def _ask(self, function: str, handle: Any) -> Any:
        try:
            return self._smi.query(function, handle, default=None)
        except ProviderError:
            return None


def _conditions_of(gpu: _GPU) -> Iterator[HealthCondition]:
    yield from _of_memory(gpu.counters)
    was_critical = HealthCode.TEMPERATURE_CRITICAL in gpu.restored or any(
        condition.code is HealthCode.TEMPERATURE_CRITICAL
        for condition in gpu.conditions
    )
    heat = gpu.temperature
    yield from temperature_conditions(
        heat.left(heat.slowdown), heat.left(heat.shutdown), was_critical=was_critical
    )
    if gpu.counters.is_throttled:
        yield health_condition(
            HealthCode.THERMAL_SLOWDOWN,
            "runs slowly, as it is too hot; see to its cooling",
        )
    yield from power_conditions(
        gpu.counters.default_watts, gpu.counters.limit_watts, None
    )


def _of_memory(counters: Counters) -> Iterator[HealthCondition]:
    """The driver takes bad pages out of use by itself: what it could not yet do, or not
    at all, is an error; an error that was dealt with is worth a warning.
    """
    if counters.pending_pages:
        yield health_condition(
            HealthCode.PAGE_RETIREMENT_PENDING,
            "has a bad memory page that the driver takes out of use when it is loaded "
            "next; reboot the host",
        )
    is_worn = bool(
        counters.most_bad_pages
        and counters.bad_pages
        and counters.bad_pages >= counters.most_bad_pages
    )
    if counters.lost_pages or is_worn:
        yield health_condition(
            HealthCode.BAD_PAGES, "has too many bad memory pages; have it replaced"
        )
    if counters.uncorrected:
        yield health_condition(
            HealthCode.ECC_UNCORRECTED,
            "has had an uncorrectable memory error",
            severity=Severity.WARNING,
        )


def _is_unknown(code: HealthCode, gpu: _GPU) -> bool:
    """Whether the library does not tell what conditions of a code are read from."""
    if code is HealthCode.TEMPERATURE_CRITICAL:
        return gpu.temperature.left(gpu.temperature.shutdown) is None
    is_of_pages = code in (HealthCode.PAGE_RETIREMENT_PENDING, HealthCode.BAD_PAGES)
    return is_of_pages and gpu.counters.bad_pages is None


def _figures(gpu: _GPU) -> HealthFigures:
    return HealthFigures(
        ecc_corrected=gpu.counters.corrected,
        ecc_uncorrected=gpu.counters.uncorrected,
        temperature_celsius=gpu.temperature.now,
        slowdown_celsius=gpu.temperature.slowdown,
        shutdown_celsius=gpu.temperature.shutdown,
        power_limit_watts=gpu.counters.limit_watts,
        default_limit_watts=gpu.counters.default_watts,
    )


def _watts(limit: Any) -> float | None:
    if not isinstance(limit, int) or limit <= 0:
        return None
    watts = limit / 1e6 if limit >= MICROWATTS_FROM else float(limit)
    return watts if watts < STRONGEST else None
