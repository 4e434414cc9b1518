"""Whether a GPU can be trusted: Xid errors, ECC, row remapping, page retirement, what
the driver asks for to recover it, and what holds its clocks down.

Xid errors come as events of NVML. They are taken from the event set whenever the GPUs
are looked at, without waiting: a thread that waits would have to be ended before each
time the driver is opened anew.

The codes are of NVIDIA's catalogue of Xid errors; what is done about memory errors
follows its "GPU Memory Error Management" and the health checks of DCGM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jupyter_aistack.core.model.device_health import (
    DeviceHealth,
    HealthCode,
    HealthCondition,
)
from jupyter_aistack.exceptions import ProviderError

from .nvml import NVML, address_of

EVENT_XID = 0x8
MOST_EVENTS = 256
"""So many events are taken at once at most."""

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

FIELD_RECOVERY_ACTION = 230
RECOVERY_ACTIONS = {
    1: "needs a reset; end its processes, then reset it",
    2: "needs the host to be rebooted",
    3: "needs its NVLink peers to be drained",
    4: "needs a reset once its processes have ended",
    6: "needs a reset of its bus",
    7: "needs the system to be rebooted",
}
"""``nvmlDeviceGpuRecoveryAction_t``, reading on after the name of a GPU."""

UNCORRECTED, CORRECTED = 1, 0
VOLATILE = 0
THERMAL_REASONS = 0x40
"""``nvmlClocksEventReasonHwThermalSlowdown``: the hardware halves the clocks, or more."""
POWER_REASONS = 0x80
"""``nvmlClocksEventReasonHwPowerBrakeSlowdown``."""


@dataclass(frozen=True, kw_only=True)
class _XidRecord:
    """A fatal Xid error that no reset has followed yet.

    Attributes:
        code: its number.
        millijoules: the energy counter then, which begins anew with a reset.
        is_recovery_seen: the driver has asked for a recovery since.
    """

    code: int
    millijoules: int | None
    is_recovery_seen: bool = False


class HealthMonitor:
    """Watches the health of GPUs; what it knows of a GPU lasts until a reset.

    Args:
        nvml: the connection to the driver.
    """

    def __init__(self, nvml: NVML) -> None:
        self._nvml = nvml
        self._events: Any = None
        self._session = 0
        self._watched: dict[int, str] = {}
        self._last_xid: dict[str, int] = {}
        self._fatal: dict[str, _XidRecord] = {}
        self._lost: set[str] = set()

    def mark_lost(self, uuid: str) -> None:
        """Note that a GPU does not answer: it comes back by a reset alone."""
        self._lost.add(uuid)

    def inspect(self, handle: Any, uuid: str) -> DeviceHealth:
        """The health of a GPU that answers."""
        self._watch(handle, uuid)
        self._take_events()
        recovery = self._recovery(handle)
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        self._forget_if_reset(uuid, recovery, millijoules)
        self._complete(uuid, recovery, millijoules)
        rows = self._ask("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
        health = DeviceHealth(
            xid=self._last_xid.get(uuid, 0) if uuid in self._watched.values() else None,
            ecc_corrected=self._ecc(handle, CORRECTED),
            ecc_uncorrected=self._ecc(handle, UNCORRECTED),
            rows_corrected=rows[0],
            rows_uncorrected=rows[1],
            is_remap_pending=None if rows[2] is None else bool(rows[2]),
            is_remap_failed=None if rows[3] is None else bool(rows[3]),
            clock_reasons=self._clock_reasons(handle),
            temperature_celsius=self._ask("nvmlDeviceGetTemperature", handle, 0),
        )
        retirement = self._ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        fatal = self._fatal.get(uuid)
        conditions = [
            *_of_driver(recovery, None if fatal is None else fatal.code),
            *_of_memory(health, is_retirement_pending=bool(retirement)),
            *_of_clocks(health.clock_reasons or 0),
        ]
        return replace(health, conditions=tuple(conditions))

    # -- events ------------------------------------------------------------------------

    def _watch(self, handle: Any, uuid: str) -> None:
        """Have the Xid errors of a GPU reported from now on."""
        if self._session != self._nvml.session:
            # The driver has freed the set with the session that it was made in.
            self._events = None
            self._watched = {}
            self._session = self._nvml.session
        if self._events is None:
            self._events = self._ask("nvmlEventSetCreate")
        address = address_of(handle)
        if self._events is None or address in self._watched:
            return
        supported = self._ask("nvmlDeviceGetSupportedEventTypes", handle) or 0
        if not supported & EVENT_XID:
            return
        if self._is_done("nvmlDeviceRegisterEvents", handle, EVENT_XID, self._events):
            self._watched[address] = uuid

    def _take_events(self) -> None:
        for _ in range(MOST_EVENTS):
            if self._events is None or self._session != self._nvml.session:
                return
            # No repetition: a set does not outlive the session that it was made in.
            event = self._ask("nvmlEventSetWait_v2", self._events, 0, is_repeated=False)
            if event is None:
                return
            uuid = self._watched.get(address_of(event.device))
            if uuid is not None and event.eventType & EVENT_XID:
                self._note(uuid, int(event.eventData))

    def _note(self, uuid: str, code: int) -> None:
        self._last_xid[uuid] = code
        if code in FATAL_XIDS:
            self._fatal[uuid] = _XidRecord(code=code, millijoules=None)

    def _forget_if_reset(
        self, uuid: str, recovery: int | None, millijoules: int | None
    ) -> None:
        """Forget an error that a reset has followed: the GPU was lost and is back, its
        energy counter began anew, or the driver asks for no recovery any more.
        """
        record = self._fatal.get(uuid)
        was_lost = uuid in self._lost
        self._lost.discard(uuid)
        if record is None:
            return
        before = record.millijoules
        is_counter_new = (
            before is not None and millijoules is not None and millijoules < before
        )
        is_recovered = record.is_recovery_seen and recovery == 0
        if was_lost or is_counter_new or is_recovered:
            del self._fatal[uuid]

    def _complete(
        self, uuid: str, recovery: int | None, millijoules: int | None
    ) -> None:
        """Remember how the GPU is while it is sick, so that a reset can be seen."""
        record = self._fatal.get(uuid)
        if record is not None:
            self._fatal[uuid] = _XidRecord(
                code=record.code,
                millijoules=millijoules,
                is_recovery_seen=record.is_recovery_seen or bool(recovery),
            )

    # -- states ------------------------------------------------------------------------

    def _recovery(self, handle: Any) -> int | None:
        """The number of the recovery that the driver asks for, 0 for none; None where
        it does not say.
        """
        fields = self._ask("nvmlDeviceGetFieldValues", handle, [FIELD_RECOVERY_ACTION])
        if not fields or fields[0].nvmlReturn:
            return None
        return int(fields[0].value.uiVal)

    def _ecc(self, handle: Any, kind: int) -> int | None:
        count = self._ask("nvmlDeviceGetTotalEccErrors", handle, kind, VOLATILE)
        return None if count is None else int(count)

    def _clock_reasons(self, handle: Any) -> int | None:
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:  # its name until driver 535
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return None if reasons is None else int(reasons)

    def _is_done(self, function: str, *args: Any) -> bool:
        try:
            self._nvml.query(function, *args)
        except ProviderError:
            return False
        return True

    def _ask(self, function: str, *args: Any, is_repeated: bool = True) -> Any:
        try:
            return self._nvml.query(
                function, *args, default=None, is_repeated=is_repeated
            )
        except ProviderError:
            return None


def _of_driver(recovery: int | None, xid: int | None) -> Iterator[HealthCondition]:
    """What the driver asks for, and the error that no reset has followed."""
    if recovery in RECOVERY_ACTIONS:
        yield HealthCondition(
            code=HealthCode.RECOVERY_NEEDED, message=RECOVERY_ACTIONS[recovery]
        )
    if xid is not None:
        yield HealthCondition(
            code=HealthCode.XID_ERROR,
            message=f"reported Xid {xid} ({FATAL_XIDS[xid]}); reset it",
        )


def _of_memory(
    health: DeviceHealth, *, is_retirement_pending: bool
) -> Iterator[HealthCondition]:
    if health.is_remap_failed:
        yield HealthCondition(
            code=HealthCode.ROW_REMAP_FAILURE,
            message="has a memory row that could not be remapped; have it replaced",
        )
    if health.is_remap_pending:
        yield HealthCondition(
            code=HealthCode.ROW_REMAP_PENDING,
            message="has a faulty memory row that a reset will remap; reset it",
        )
    if is_retirement_pending:
        yield HealthCondition(
            code=HealthCode.PAGE_RETIREMENT_PENDING,
            message="has a faulty memory page that a reset will retire; reset it",
        )
    # Where rows can be remapped, errors are contained, and only what waits for a reset
    # counts; elsewhere each is a reason for one.
    can_remap = health.is_remap_pending is not None
    if not can_remap and health.ecc_uncorrected:
        yield HealthCondition(
            code=HealthCode.ECC_UNCORRECTED,
            message="has had an uncorrectable memory error; reset it",
        )


def _of_clocks(reasons: int) -> Iterator[HealthCondition]:
    if reasons & THERMAL_REASONS:
        yield HealthCondition(
            code=HealthCode.THERMAL_SLOWDOWN,
            message="runs slowly, as it is too hot; see to its cooling",
        )
    if reasons & POWER_REASONS:
        yield HealthCondition(
            code=HealthCode.POWER_BRAKE,
            message="runs slowly, as its power supply brakes it; see to its power",
        )
