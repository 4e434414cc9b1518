"""The broker of this process, for the kernels of one user.

The host's broker answers Jupyter servers through this too: what a server may ask for its
kernels has one meaning, wherever the broker runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.device_state import reset_for_new_process
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.system.users import current_user, groups_of

from ..broker import Broker
from ..device_processes import DeviceProcesses
from ..kernel_reports import take_report
from ..memory_watchdog import MemoryBreach
from .port import DeviceHiding

RECENT_LEASES = 200
"""How many of a host's newest leases are searched for those of a process that is to be
ended."""


class EmbeddedBroker:
    """A broker in this process, for the kernels of one user; see `KernelBroker`.

    Args:
        broker: what answers.
        user: whose kernels these are; None for who runs this process.
        groups: the Unix groups of that user; None asks the system when needed.
        pid: the process that starts the kernels; None for this process.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        user: str | None = None,
        groups: frozenset[str] | None = None,
        pid: int | None = None,
    ) -> None:
        self._broker = broker
        self.user = current_user() if user is None else user
        self._groups = groups
        self._pid = os.getpid() if pid is None else pid

    # -- getting -----------------------------------------------------------------------

    def acquire(
        self, kernel_id: str, spec: str, *, queue: str, up_to: str, label: str
    ) -> None:
        holder = Holder(
            kind=HolderKind.KERNEL,
            id=kernel_id,
            user=self.user,
            host=self._broker.host,
            pid=self._pid,
            label=printable(label),
        )
        groups = groups_of(self.user) if self._groups is None else self._groups
        self._broker.acquire(spec, holder, queue=queue, up_to=up_to, groups=groups)

    def leases(self) -> tuple[Lease, ...]:
        return self._own(self._broker.leases())

    def recent_leases(self) -> tuple[Lease, ...]:
        broker = self._broker
        newest = broker.ledger.leases(
            broker.clock(), host=broker.host, live=False, limit=RECENT_LEASES
        )
        return self._own(newest)

    def _own(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        return tuple(lease for lease in leases if lease.holder.user == self.user)

    def requests(self) -> tuple[Request, ...]:
        return tuple(
            request
            for request in self._broker.host_state.read().requests
            if request.holder.user == self.user
        )

    def reason(self, request_id: str) -> str:
        for waiting in self._broker.waiting():
            if waiting.request.id == request_id:
                return waiting.reason
        return ""

    def prepare(self, lease: Lease) -> Preparation:
        return self._broker.prepare(lease)

    def device_hiding(self) -> DeviceHiding:
        return DeviceHiding(
            has_gpus=any(d.is_real_gpu for d in self._broker.inventory().devices),
            environment=self._broker.devices.hidden_environment(),
        )

    # -- while a process runs ----------------------------------------------------------

    def bind(self, lease: Lease, *, pid: int, root_pid: int | None) -> Lease:
        broker = self._broker
        bound = broker.bind(lease.id, lease.token, pid=pid, root_pid=root_pid)
        if not _is_of_other_process(lease, root_pid):
            return bound
        # What was suspended of the process before is gone with it.
        return broker.update_device_state(
            lease.id,
            lease.token,
            lambda state: reset_for_new_process(state, broker.clock()),
        )

    def activate(
        self,
        lease: Lease,
        *,
        verified: bool | None,
        condition: Condition | None = None,
    ) -> Lease:
        return self._broker.activate(
            lease.id, lease.token, verified=verified, condition=condition
        )

    def is_listed(self, lease: Lease, pid: int) -> bool | None:
        clients = self._broker.clients(lease)
        return None if clients is None else pid in clients

    def processes_on_device(self, leases: Sequence[Lease], pid: int) -> DeviceProcesses:
        return DeviceProcesses(self._broker, leases, pid)

    # -- giving back -------------------------------------------------------------------

    def cancel(self, request_id: str) -> None:
        self._broker.cancel(request_id)

    def release(self, lease: Lease) -> None:
        self._broker.release(lease.id, lease.token)

    # -- regularly ---------------------------------------------------------------------

    def run_cycle(self) -> None:
        self._broker.cycle()

    def maintain(self) -> None:
        self._broker.maintain()

    def report(self, report: KernelReport) -> tuple[MemoryBreach, ...]:
        if self.take_report(report) or self._broker.strays.is_on_watch:
            self._broker.maintain()
        else:
            # Asking its drivers would keep a sleeping GPU awake.
            self._broker.record_usage()
            self._broker.host_state.report(is_idle=True)
            self._broker.history.tend()
        return self.breaches(report)

    def take_report(self, report: KernelReport) -> bool:
        """Take a report into account, and leave the rest to the regular turn; whether
        anything is leased or waited for on this host.
        """
        return take_report(self._broker, self.user, report)

    def breaches(self, report: KernelReport) -> tuple[MemoryBreach, ...]:
        """What is to be done about processes of these kernels; each is told once."""

        def is_own(lease: Lease) -> bool:
            kernel_id = lease.holder.parent or lease.holder.id
            is_theirs = lease.holder.belongs_to(self.user, kernel_id)
            return is_theirs and kernel_id in report.running

        return self._broker.memory.take_breaches(is_own)

    def breach_handled(self, lease: Lease, words: str) -> None:
        self._broker.memory.done(lease, words)

    def breach_postponed(self, lease: Lease) -> None:
        self._broker.memory.not_yet(lease)

    def record_first_use(self) -> None:
        # All that follows is recorded in the regular turns.
        if not self._broker.usage_meter.is_open:
            self._broker.record_usage()

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        return self._broker.events(after, limit)


def _is_of_other_process(lease: Lease, root_pid: int | None) -> bool:
    """Whether the device state of a lease is of a process before `root_pid`."""
    if root_pid is None or lease.residence is None:
        return False
    return lease.holder.root_pid not in (None, root_pid)
