"""The broker of one host: it turns snapshots into plans and plans into fact.

Each of its methods is a method of one of its parts. There may be many brokers over one
ledger; fencing tokens and its version keep them honest. Synchronous: use threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.policy import Policy, SuspendPolicy
from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.core.suspend.capability import UNTESTED, SuspendCapability
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.system.host import this_host
from jupyter_aistack.system.pid_namespace import PidNamespace

from .cycle import SchedulingCycle
from .devices import DeviceManager
from .fault_monitor import FaultMonitor
from .host_state import HostState
from .leases import Leases
from .liveness import HolderLiveness
from .maintenance import Maintenance
from .memory_watchdog import MemoryWatchdog
from .mig import MIGReconfigurer
from .processes import HolderProcesses
from .requests import Requests
from .reservations import Reservations
from .suspend_support import SuspendSupport
from .suspension import Suspension
from .usage_meter import UsageMeter
from .withdrawals import Withdrawals


class Broker:
    """Grants slices of this host.

    Args:
        ledger: where everything is written down.
        providers: discover and prepare devices; the provider that discovered a device
            owns it.
        policy: how slices are shared out: queues, limits, fairness.
        host: this machine; a text is both its id and its name, None is what the system
            says.
        clock: seconds since the epoch.
        ttl_seconds: how long a lease lives without renewal.
        is_alive: whether a process (pid, start time) still runs; None for what the
            system and the ledger say.
        suspend: when idle kernels are suspended; None for never.
        capability: how well the host can suspend, as far as it is known yet.
        host_memory: bytes of free host memory; None for what the system says.
        not_enforced_action: about a lease whose process finds more than was granted.
        memory_action: about processes that hold more GPU memory than their lease has.
        show_names: whether users see the names of others.
        pid_namespace: tells which ids that a driver lists are of processes here.
    """

    def __init__(
        self,
        ledger: Ledger,
        providers: Sequence[Provider],
        *,
        policy: Policy | None = None,
        host: HostIdentity | str | None = None,
        clock: Callable[[], float] = time.time,
        ttl_seconds: float = 60.0,
        is_alive: Callable[[int, float | None], bool] | None = None,
        suspend: SuspendPolicy | None = None,
        capability: SuspendCapability = UNTESTED,
        host_memory: Callable[[], int] | None = None,
        not_enforced_action: NotEnforcedAction = NotEnforcedAction.WARN,
        memory_action: MemoryAction = MemoryAction.INTERRUPT,
        show_names: bool = True,
        pid_namespace: PidNamespace | None = None,
    ) -> None:
        self.ledger = ledger
        identity = _identity(host)
        self.host = identity.id
        self.ttl_seconds = ttl_seconds
        self.suspend = suspend
        self.not_enforced_action = not_enforced_action
        self.devices = devices = DeviceManager(
            providers,
            host=self.host,
            clock=clock,
            held=lambda: self.processes.holders(),
            namespace=pid_namespace,
            host_name=identity.name,
        )
        self.host_state = state = HostState(
            ledger, devices, policy or Policy(), clock, ttl_seconds, identity
        )
        self.memory = MemoryWatchdog(ledger, state.now, memory_action)
        self._faults = FaultMonitor(devices, ledger, state.now, show_names=show_names)
        self.mig = MIGReconfigurer(devices, state.now)
        self.processes = HolderProcesses(
            state,
            liveness=_liveness(ledger, is_alive),
            orphans=self.memory.orphan_processes,
        )
        self.usage_meter = UsageMeter(
            ledger, devices, host=self.host, clock=state.now, pids=self.processes.pids
        )
        self.suspend_support = SuspendSupport(
            state, policy=suspend, capability=capability, host_memory=host_memory
        )
        self._withdrawals = withdrawals = Withdrawals(state)
        self._cycle = SchedulingCycle(
            state, self.processes, self.suspend_support, withdrawals
        )
        self._delegate()
        self._delegate_leases()

    def _delegate(self) -> None:
        """Build the parts that answer; their methods are the broker's."""
        state = self.host_state
        cycle = self._cycle
        self.inventory = state.inventory
        self.leases = state.leases
        self.lease = state.lease
        self.request = state.request
        self.faults = state.faults
        self.events = state.ledger.events
        self.cycle = cycle.run
        self.snapshot = cycle.snapshot
        self.withdraw = self._withdrawals.withdraw
        self.withdraw_key = self._withdrawals.withdraw_key
        requests = Requests(state, cycle, self._withdrawals)
        self.waiting = requests.forecasts
        self.queue = requests.queued
        self.acquire = requests.acquire
        self.submit = requests.submit
        self.adopt = requests.adopt
        self.cancel = requests.cancel

        reservations = Reservations(state, cycle, self._withdrawals)
        self.reservations = reservations.current
        self.reserve = reservations.reserve
        self.unreserve = reservations.unreserve
        suspension = Suspension(state, cycle, self.suspend_support)
        self.suspend_capacity_bytes = suspension.capacity_bytes
        self.with_pin_reasons = suspension.with_pin_reasons
        self.transfers = suspension.transfers
        self.update_device_state = suspension.update_device_state
        self.begin_cell = suspension.begin_cell
        self.end_cell = suspension.end_cell
        self.request_action = suspension.request_action
        self.set_pinned = suspension.set_pinned

    def _delegate_leases(self) -> None:
        state = self.host_state
        leases = Leases(
            state,
            self._cycle,
            self.processes,
            self._withdrawals,
            self.not_enforced_action,
            self.suspend_support.policy,
        )
        self.current_leases = leases.current
        self.prepare = leases.prepare
        self.preparation = leases.preparation
        self.activate = leases.activate
        self.bind = leases.bind
        self.record_activity = leases.record_activity
        self.clients = leases.clients
        self.terminate = leases.terminate
        self.renew = leases.renew
        self.extend = leases.extend
        self.release = leases.release

        maintenance = Maintenance(
            state,
            self._cycle,
            leases,
            self.processes,
            usage_meter=self.usage_meter,
            memory=self.memory,
            faults=self._faults,
            mig=self.mig,
        )
        self.maintain = maintenance.maintain
        self.usage = maintenance.usage
        self.recent_usage = maintenance.recent_usage
        self.sample = maintenance.sample
        self.record_usage = maintenance.record_usage
        self.flush_usage = maintenance.flush_usage

    @property
    def clock(self) -> Callable[[], float]:
        """Gives seconds since the epoch."""
        return self.host_state.clock

    @property
    def policy(self) -> Policy:
        """How slices are shared out."""
        return self.host_state.policy

    def close(self) -> None:
        """Let go of the ledger and the drivers."""
        self._withdrawals.settle()
        with contextlib.suppress(AIStackError):
            self.usage_meter.transfer_metering()
        self.devices.close()
        self.ledger.close()


def _identity(host: HostIdentity | str | None) -> HostIdentity:
    if isinstance(host, str) and host:
        return HostIdentity(id=host, name=host)
    return host if isinstance(host, HostIdentity) else this_host()


def _liveness(
    ledger: Ledger, is_alive: Callable[[int, float | None], bool] | None
) -> Callable[[Holder], Liveness]:
    if is_alive is None:
        return HolderLiveness(ledger)

    def asked(holder: Holder) -> Liveness:
        if holder.pid is None:
            return Liveness.UNKNOWN
        is_seen = is_alive(holder.pid, holder.pid_started_at)
        return Liveness.ALIVE if is_seen else Liveness.GONE

    return asked
