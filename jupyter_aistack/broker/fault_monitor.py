"""Watches for GPUs that failed for all who share them, and tells each holder
which process caused the fault.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from jupyter_aistack.core.enforcement.faults import (
    affected,
    culprit_of,
    fault_condition,
)
from jupyter_aistack.core.model.condition import ConditionUpdate
from jupyter_aistack.core.model.device import Fault
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.system.processes import program_of

from .devices import DeviceManager

log = logging.getLogger("jupyter_aistack")


class FaultMonitor:
    """Notifies the holders of a host's leases of faults, once each.

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
