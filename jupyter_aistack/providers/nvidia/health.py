"""Whether a GPU can be trusted: Xid errors, ECC, row remapping, page retirement, what
the driver asks for to recover it, its temperature and power, and what slows it down.

Xid errors are told once, as they happen (`EventListener`); all else is a state, which is
looked at every ten seconds, and counters every minute. A GPU that has reported an error,
or is sick, is looked at whenever the GPUs are, so that nothing is granted on it any more,
and it is granted again as soon as it has recovered.

The codes are of NVIDIA's catalogue of Xid errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

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
from jupyter_aistack.core.model.health_rules import held_conditions

from .health_conditions import (
    FATAL_XIDS,
    Readings,
    conditions_of,
    is_unknown,
    xid_message,
)
from .health_readings import Counters, HealthReader, Limits, State
from .nvml import NVML
from .xid_events import EventListener

STATE_SECONDS = 10.0
"""How often the state of a GPU that is well is looked at."""
COUNTERS_SECONDS = 60.0
"""How often its counters are; with its state where it reports no events."""

_NO_EVENTS = (
    f"reports no Xid errors; its state is looked at every {STATE_SECONDS:.0f} s instead"
)


@dataclass(frozen=True, kw_only=True)
class _XidRecord:
    """A fatal Xid error that no reset has followed yet.

    Attributes:
        code: its number; None where that is lost.
        since: when it was reported.
        millijoules: the energy counter when the GPU was last looked at, which begins
            anew with a reset.
        first_millijoules: that counter when the error was new.
        is_recovery_seen: the driver has asked for a recovery since.
        is_recorded: it is written down.
    """

    code: int | None
    since: float
    millijoules: int | None = None
    first_millijoules: int | None = None
    is_recovery_seen: bool = False
    is_recorded: bool = False

    @property
    def evidence(self) -> str:
        """All that another process needs to tell when it is over."""
        facts = {
            "xid": self.code,
            "millijoules": self.first_millijoules,
            "is_recovery_seen": self.is_recovery_seen,
        }
        return json.dumps(facts, separators=(",", ":"))


@dataclass(kw_only=True)
class _GPU:
    """What is known of one GPU.

    Attributes:
        last_xid: the number of its last Xid error.
        record: a fatal one.
        over_since: when the last fatal one was reported that is over.
        is_lost: it does not answer.
        is_urgent: it has reported something since it was looked at.
        since: since when conditions hold.
        restored: the kinds of fault that are written down.
    """

    last_xid: int = 0
    record: _XidRecord | None = None
    over_since: float = -math.inf
    is_lost: bool = False
    is_urgent: bool = False
    since: dict[HealthCode, float] = field(default_factory=dict)
    restored: dict[HealthCode, DeviceFault] = field(default_factory=dict)
    limits: Limits | None = None
    state: State = field(default_factory=State)
    counters: Counters = field(default_factory=Counters)
    state_at: float = -math.inf
    counters_at: float = -math.inf
    conditions: HealthConditions = ()

    @property
    def is_sick(self) -> bool:
        health = DeviceHealth(conditions=self.conditions)
        return bool(health.errors or self.restored or self.record)


class HealthMonitor:
    """Watches the health of GPUs; what it knows of an error lasts until a reset.

    Args:
        nvml: the connection to the driver.
        clock: seconds since the epoch.
    """

    def __init__(self, nvml: NVML, clock: Callable[[], float]) -> None:
        self._nvml = nvml
        self._clock = clock
        self._reader = HealthReader(nvml)
        self._listener = EventListener(nvml)
        self._session = 0
        self._gpus: dict[str, _GPU] = {}

    def restore(self, faults: Iterable[DeviceFault]) -> None:
        """Take over what is written down of GPUs, and that of what is over."""
        recorded = faults_by_device(faults)
        for uuid in self._gpus.keys() | recorded.keys():
            gpu = self._of(uuid)
            gpu.restored = recorded.get(uuid, {})
            _restore_xid(gpu, gpu.restored.get(HealthCode.XID_ERROR))

    def listen(self) -> None:
        """Wait for the errors of all GPUs that were inspected."""
        self._listener.listen()

    def unanswered(
        self, uuid: str, code: HealthCode, message: str, *, is_lost: bool
    ) -> DeviceHealth:
        """The health of a GPU that does not answer. One that is lost comes back by a
        reset alone.
        """
        gpu = self._of(uuid)
        gpu.is_lost = gpu.is_lost or is_lost
        conditions = [health_condition(code, message), *_of_record(gpu.record)]
        return DeviceHealth(conditions=self._dated(gpu, conditions))

    def inspect(self, handle: Any, uuid: str) -> DeviceHealth:
        """The health of a GPU that answers."""
        if self._session != self._nvml.session:
            self._session = self._nvml.session
            for known in self._gpus.values():
                known.is_urgent = True
        self._listener.watch(handle, uuid)
        self._note_events()
        gpu = self._of(uuid)
        is_watched = self._listener.is_watched(uuid)
        self._read(gpu, handle, is_watched=is_watched)
        self._follow_record(gpu, handle)

        readings = self._readings(gpu)
        conditions = [*conditions_of(readings), *_of_record(gpu.record)]
        is_mute = partial(is_unknown, readings=readings)
        conditions += held_conditions(gpu.restored, conditions, is_mute)
        if not is_watched:
            conditions.append(health_condition(HealthCode.EVENTS_MISSING, _NO_EVENTS))
        return DeviceHealth(
            conditions=self._dated(gpu, conditions),
            figures=_figures(gpu, is_watched=is_watched),
        )

    def _of(self, uuid: str) -> _GPU:
        return self._gpus.setdefault(uuid, _GPU())

    def _dated(
        self, gpu: _GPU, conditions: Iterable[HealthCondition]
    ) -> HealthConditions:
        """The conditions with the time since when they hold, which is remembered."""
        written = {code: fault.since for code, fault in gpu.restored.items()}
        gpu.conditions = dated(conditions, gpu.since | written, self._clock())
        gpu.since = {each.code: each.since for each in gpu.conditions}
        return gpu.conditions

    # -- looking -----------------------------------------------------------------------

    def _note_events(self) -> None:
        for event in self._listener.take():
            gpu = self._of(event.uuid)
            gpu.is_urgent = True
            if event.xid is None:
                continue
            gpu.last_xid = event.xid
            # The first one stays: what follows it until a reset is of its making.
            if event.xid in FATAL_XIDS and gpu.record is None:
                gpu.record = _XidRecord(code=event.xid, since=self._clock())

    def _read(self, gpu: _GPU, handle: Any, *, is_watched: bool) -> None:
        """Ask the driver what is due."""
        now = self._clock()
        is_due_anyway = gpu.is_urgent or gpu.is_sick
        gpu.is_urgent = False
        if gpu.limits is None:
            gpu.limits = self._reader.limits(handle)
        if is_due_anyway or _is_due(gpu.state_at, now, STATE_SECONDS):
            gpu.state = self._reader.state(handle, gpu.limits)
            gpu.state_at = now
        pace = COUNTERS_SECONDS if is_watched else STATE_SECONDS
        if is_due_anyway or _is_due(gpu.counters_at, now, pace):
            gpu.counters = self._reader.counters(handle)
            gpu.counters_at = now

    def _readings(self, gpu: _GPU) -> Readings:
        assert gpu.limits is not None
        was_critical = any(
            condition.code is HealthCode.TEMPERATURE_CRITICAL
            for condition in gpu.conditions
        )
        return Readings(
            limits=gpu.limits,
            state=gpu.state,
            counters=gpu.counters,
            was_critical=was_critical
            or HealthCode.TEMPERATURE_CRITICAL in gpu.restored,
        )

    def _follow_record(self, gpu: _GPU, handle: Any) -> None:
        """Forget an error that a reset has followed: the GPU was lost and is back, its
        energy counter began anew, or the driver asks for no recovery any more.
        """
        record = gpu.record
        was_lost = gpu.is_lost
        gpu.is_lost = False
        if record is None:
            return
        before = record.millijoules
        millijoules = self._reader.millijoules(handle)
        is_counter_new = (
            before is not None and millijoules is not None and millijoules < before
        )
        recovery = gpu.state.recovery
        is_recovered = record.is_recovery_seen and recovery == 0
        if was_lost or is_counter_new or is_recovered:
            _end_record(gpu)
            return
        first = record.first_millijoules
        gpu.record = replace(
            record,
            millijoules=millijoules,
            first_millijoules=millijoules if first is None else first,
            is_recovery_seen=record.is_recovery_seen or bool(recovery),
        )


def _is_due(at: float, now: float, seconds: float) -> bool:
    return not 0 <= now - at < seconds


def _restore_xid(gpu: _GPU, fault: DeviceFault | None) -> None:
    """Take over a fatal Xid error that is written down, or that one is over."""
    if fault is None:
        # Another process has seen the reset.
        if gpu.record is not None and gpu.record.is_recorded:
            _end_record(gpu)
        return
    if fault.since <= gpu.over_since:
        return
    facts = _facts(fault.evidence)
    if gpu.record is None:
        gpu.record = _XidRecord(
            code=facts.get("xid"),
            since=fault.since,
            millijoules=facts.get("millijoules"),
            first_millijoules=facts.get("millijoules"),
        )
    gpu.record = replace(
        gpu.record,
        since=fault.since,
        # What is written down stays so: two processes need not agree on more.
        code=facts.get("xid", gpu.record.code),
        first_millijoules=facts.get("millijoules", gpu.record.first_millijoules),
        is_recovery_seen=gpu.record.is_recovery_seen
        or bool(facts.get("is_recovery_seen")),
        is_recorded=True,
    )


def _end_record(gpu: _GPU) -> None:
    if gpu.record is not None:
        gpu.over_since = max(gpu.over_since, gpu.record.since)
    gpu.record = None


def _facts(evidence: str) -> dict[str, Any]:
    """What a record's evidence says; nothing where it cannot be read."""
    try:
        facts = json.loads(evidence)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _of_record(record: _XidRecord | None) -> Iterator[HealthCondition]:
    if record is not None:
        yield health_condition(
            HealthCode.XID_ERROR, xid_message(record.code), evidence=record.evidence
        )


def _figures(gpu: _GPU, *, is_watched: bool) -> HealthFigures:
    limits = gpu.limits
    counters = gpu.counters
    return HealthFigures(
        xid=gpu.last_xid if is_watched else None,
        ecc_corrected=counters.ecc_corrected,
        ecc_uncorrected=counters.ecc_uncorrected,
        rows_corrected=counters.rows_corrected,
        rows_uncorrected=counters.rows_uncorrected,
        is_remap_pending=counters.is_remap_pending,
        is_remap_failed=counters.is_remap_failed,
        clock_reasons=gpu.state.clock_reasons,
        temperature_celsius=gpu.state.temperature_celsius,
        slowdown_celsius=None if limits is None else limits.slowdown_celsius,
        shutdown_celsius=None if limits is None else limits.shutdown_celsius,
        power_limit_watts=counters.limit_watts,
        enforced_limit_watts=counters.enforced_watts,
        default_limit_watts=None if limits is None else limits.default_watts,
    )
