"""What a broker works on: the ledger, the devices of its host, the policy and the
clock. The other parts of the broker read through it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device import Fault, Inventory
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.host import HostIdentity, HostReport, reported
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Policy
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.exceptions import LedgerError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.changes import Change, state_after
from jupyter_aistack.ledger.state import LedgerState
from jupyter_aistack.system.processes import identity_of

from .devices import DeviceManager
from .history import HistoryKeeper, HistoryOptions


class HostState:
    """The state of one host, as far as it is written down or can be measured.

    Args:
        ledger: where everything is written down.
        devices: the devices of the host.
        policy: how slices are shared out.
        clock: seconds since the epoch.
        ttl_seconds: how long a lease lives without renewal.
        identity: the host.
        history: where old records go, and when; None keeps them in the ledger.

    Attributes:
        other_hosts: how many hosts share the ledger beside this host.
        history: looks after what has happened.
    """

    def __init__(
        self,
        ledger: Ledger,
        devices: DeviceManager,
        policy: Policy,
        clock: Callable[[], float],
        ttl_seconds: float,
        identity: HostIdentity,
        history: HistoryOptions | None,
    ) -> None:
        self.ledger = ledger
        self.devices = devices
        self.policy = policy
        self.identity = identity
        self.host = identity.id
        self.clock = clock
        self.ttl_seconds = ttl_seconds
        self.other_hosts = 0
        self.history = HistoryKeeper(
            ledger, history or HistoryOptions(), host=identity.name, clock=clock
        )
        self._last_report: HostReport | None = None
        self._is_registered = False
        self._before: frozenset[str] = frozenset()

    def set_policy(self, policy: Policy) -> None:
        """Share slices out by another policy from the next cycle on; leases that were
        granted stay.
        """
        self.policy = policy
        self.ledger.half_life_seconds = policy.half_life_seconds

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock()

    def read(self) -> LedgerState:
        """All that the ledger holds of this host and that a plan needs."""
        self._register()
        return self.ledger.read(self.host, self.now())

    def state_after(self, changes: Sequence[Change], now: float) -> LedgerState:
        """As `read`, as it will be once `changes` are written. For these it need not be
        the latest: whoever writes them is told.
        """
        if not changes:
            return self.read()
        self._register()
        ledger = self.ledger
        state = ledger.recall(self.host, now)
        return state_after(state, changes, now, ledger.half_life_seconds)

    def inventory(self) -> Inventory:
        """The devices of this host, at most two seconds old, with the memory of foreign
        processes marked.
        """
        return self.devices.inventory()

    def leases(self, *, live: bool = True) -> tuple[Lease, ...]:
        """This host's leases, newest first; with `live` only those that have not
        ended.
        """
        self._register()
        return self.ledger.leases(self.now(), host=self.host, live=live)

    def lease(self, lease_id: str) -> Lease:
        """A lease, live or ended. Raises `LeaseNotFound`."""
        return self.ledger.lease(lease_id, self.now())

    def request(self, request_id: str) -> Request:
        """A request, whatever its state. Raises `LeaseNotFound`."""
        return self.ledger.request(request_id)

    def faults(self) -> tuple[Fault, ...]:
        """The faults of what shares a device out that have not been cleared: each broke
        the work of all who share it.
        """
        return self.devices.faults()

    def recorded_faults(self) -> tuple[DeviceFault, ...] | None:
        """Why devices are out of placement, as it is written down; None where that
        cannot be read now.
        """
        try:
            return self.ledger.device_faults(self.host)
        except LedgerError:
            return None

    def faulty_devices(self) -> frozenset[str]:
        """Ids of the devices that broke the work of those who share them, or are sick
        themselves.
        """
        shared = {fault.device_id for fault in self.faults()}
        devices = self.inventory().devices
        return frozenset(shared | {d.id for d in devices if d.health.errors})

    # -- who is who --------------------------------------------------------------------

    def identified(self, holder: Holder) -> Holder:
        """A holder of this host, its process marked so that nobody takes it for
        another, with the devices that may be granted to it.
        """
        named = replace(
            holder,
            host_name=holder.host_name or self.identity.name,
            allowance=self.devices.allowance,
        )
        if holder.pid is None:
            return named
        process = identity_of(holder.pid)
        known = holder.pid_started_at
        return replace(
            named,
            pid_started_at=process.started if known is None else known,
            boot_id=process.boot_id,
            pid_namespace=process.pid_namespace,
        )

    def show_presence(self) -> None:
        """Show those who cannot see this process that it lives. Where there is no way
        to, it is known by its leases being renewed.
        """
        with contextlib.suppress(LedgerError):
            self.ledger.hold_presence(identity_of(os.getpid()))

    def report(self, *, is_idle: bool = False) -> None:
        """Tell those who share the ledger that this host is there, and what it grants.
        What fails is tried again in the next turn.

        Args:
            is_idle: no driver is to be asked but for a first report: the devices are
                those that were told last.
        """
        known = self._last_report
        again = replace(known, seen_at=self.now()) if known and is_idle else None
        report = again or self._new_report()
        if not report.is_due_after(known):
            return
        with contextlib.suppress(LedgerError):
            others = self.ledger.report_host(report)
            self.other_hosts = len({other.host for other in others})
            self._last_report = report

    def _new_report(self) -> HostReport:
        return HostReport(
            host=self.host,
            host_name=self.identity.name,
            devices=tuple(map(reported, self.inventory().devices)),
            allowance=self.devices.allowance,
            seen_at=self.now(),
        )

    def _register(self) -> None:
        """Write down what this host is called, and end what it left when it was started
        again. What fails is tried again at the next reading.
        """
        if self._is_registered and not self._before:
            return
        with contextlib.suppress(LedgerError):
            if not self._is_registered:
                before = self.ledger.register_host(self.identity, self.now())
                self._before = frozenset(before)
                self._is_registered = True
            for host in self._before:
                if self._is_over(host):
                    self.ledger.succeed_host(host, self.identity, self.now())
                    self._before -= {host}

    def _is_over(self, host: str) -> bool:
        """Whether nothing lives on what may be an earlier run of this host, and not a
        machine that is called like it.
        """
        state = self.ledger.read(host, self.now())
        if any(lease.expires_at > self.now() for lease in state.leases):
            return False
        holders = [lease.holder for lease in state.leases]
        holders += [request.holder for request in state.requests]
        processes = [holder.process for holder in holders]
        return not any(
            process is not None and self.ledger.has_witness(process)
            for process in processes
        )
