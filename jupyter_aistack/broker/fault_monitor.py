"""Watches for GPUs that failed for all who share them, or are sick themselves, and tells
each holder, as far as it is known, which process caused the fault.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from jupyter_aistack.core.enforcement.faults import (
    affected,
    culprit_of,
    fault_condition,
    is_untold,
    recorded_faults,
    sick_device_condition,
)
from jupyter_aistack.core.model.condition import ConditionUpdate
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.device_health import (
    DeviceFault,
    HealthCode,
    faults_by_device,
)
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.system.processes import program_of

from .devices import DeviceManager

log = logging.getLogger("jupyter_aistack")


class FaultMonitor:
    """Notifies the holders of a host's leases of faults, once each, and writes down what
    keeps a device out of placement.

    No grant is made on such a device meanwhile: it has a problem until its provider has
    verified it again.

    Args:
        devices: what knows of faults.
        ledger: where faults are recorded.
        clock: seconds since the epoch.
        show_names: whether users see the names of others.
    """

    def __init__(
        self,
        devices: DeviceManager,
        ledger: Ledger,
        clock: Callable[[], float],
        *,
        show_names: bool,
    ) -> None:
        self._devices = devices
        self._ledger = ledger
        self._clock = clock
        self._show_names = show_names
        self._known: frozenset[Fault] = frozenset()

    def check(
        self, leases: Sequence[Lease], pids: Callable[[], Mapping[str, frozenset[int]]]
    ) -> None:
        """Tell what is new.

        Args:
            leases: the host's live leases.
            pids: gives each lease's processes.
        """
        self._check_sharing(leases, pids)
        self._check_devices(leases)

    def _check_devices(self, leases: Sequence[Lease]) -> None:
        """Write down which devices are sick, and which have recovered."""
        faults = self._ledger.device_faults(self._devices.host)
        recorded = faults_by_device(faults)
        for device in self._devices.inventory().devices:
            known = recorded.get(device.id, {})
            if device.health.errors:
                self._record(device, known, leases)
            elif known and device.is_healthy:
                # A device that does not answer may be as sick as before.
                self._clear(device)

    def _record(
        self,
        device: Device,
        known: Mapping[HealthCode, DeviceFault],
        leases: Sequence[Lease],
    ) -> None:
        faults = recorded_faults(device, self._devices.host)
        is_known = all(
            fault.code in known and known[fault.code].evidence == fault.evidence
            for fault in faults
        )
        if is_known and not is_untold(device, leases):
            return
        if not known:
            log.warning("%s: %s %s", device.id, device.name, device.health.problem)
        now = self._clock()
        self._ledger.record_device_faults(
            self._devices.host,
            device.id,
            faults,
            now,
            sick_device_condition(device, now),
        )

    def _clear(self, device: Device) -> None:
        host = self._devices.host
        detail = f"{device.name} has recovered; it may be granted again"
        if self._ledger.clear_device_faults(host, device.id, self._clock(), detail):
            log.warning("%s: %s", device.id, detail)

    def _check_sharing(
        self, leases: Sequence[Lease], pids: Callable[[], Mapping[str, frozenset[int]]]
    ) -> None:
        """Tell of what broke the work of all who share a device."""
        known = self._known
        self._known = frozenset(self._devices.faults())
        for fault in self._known - known:
            cause = "" if fault.pid is None else f", caused by process {fault.pid}"
            log.warning("%s failed%s: %s", fault.device_id, cause, fault.message)
            culprit = (
                culprit_of(fault, leases, pids()) if fault.pid is not None else None
            )
            program = program_of(fault.pid) if fault.pid is not None else ""
            for lease in affected(fault, leases):
                condition = fault_condition(
                    fault,
                    lease,
                    culprit,
                    program,
                    show_names=self._show_names,
                    now=self._clock(),
                )
                self._tell(lease, ConditionUpdate(put=(condition,)))

    def _tell(self, lease: Lease, update: ConditionUpdate) -> None:
        with contextlib.suppress(LeaseError):  # it ended just now
            self._ledger.remark(
                lease.id,
                lease.token,
                self._clock(),
                EventKind.LEASE_FAULTED,
                update.text,
                conditions=update,
            )
