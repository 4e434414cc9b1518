"""The broker of one host: it turns snapshots into plans and plans into fact."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.policy import Policy, SuspendPolicy
from jupyter_aistack.core.suspend.capability import UNTESTED, SuspendCapability
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.system.host import host_identity
from jupyter_aistack.system.pid_namespace import PidNamespace

from .cycle import SchedulingCycle
from .devices import DeviceManager
from .history import HistoryOptions
from .host_state import HostState
from .leases import Leases
from .maintenance import Maintenance
from .requests import Requests
from .reservations import Reservations
from .strays import StrayOptions
from .suspend_support import SuspendSupport
from .suspension import Suspension
from .watchdogs import Watchdogs
from .withdrawals import Withdrawals


class Broker:
    """Grants slices of this host; each of its methods is a method of one of its parts.
    Many may share a ledger, whose tokens and version keep them from granting the same
    twice. Synchronous: use threads.

    Args:
        ledger: where everything is written down.
        providers: discover devices, and prepare those that they discovered.
        policy: how slices are shared out: queues, limits, fairness.
        host: this machine; a text is both its id and its name, None asks the system.
        clock: seconds since the epoch.
        ttl_seconds: how long a lease lives without renewal.
        is_alive: whether a process (pid, start time) runs; None asks the system.
        suspend: when idle kernels are suspended; None for never.
        capability: how well the host can suspend, as far as it is known yet.
        host_memory: bytes of free host memory; None for what the system says.
        not_enforced_action: about a lease whose process finds more than was granted.
        memory_action: about processes that hold more GPU memory than their lease has.
        show_names: whether users see the names of others.
        pid_namespace: tells which ids that a driver lists are of processes here.
        strays: how it is seen to processes that use a GPU without a lease.
        history: where old records go, and when; None keeps them in the ledger.
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
        strays: StrayOptions | None = None,
        history: HistoryOptions | None = None,
    ) -> None:
        self.ledger = ledger
        self.events = ledger.events
        identity = host_identity(host)
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
            recorded_faults=lambda: self.host_state.recorded_faults(),
        )
        self.host_state = state = HostState(
            ledger, devices, policy or Policy(), clock, ttl_seconds, identity, history
        )
        self.clock = state.now
        self.history = state.history
        watchdogs = Watchdogs(state, is_alive, memory_action, strays or StrayOptions())
        self._watchdogs = watchdogs
        self.memory = watchdogs.memory
        self.strays = watchdogs.strays
        self.processes = watchdogs.processes
        self.suspend_support = SuspendSupport(
            state, policy=suspend, capability=capability, host_memory=host_memory
        )
        withdrawals = Withdrawals(state)
        cycle = SchedulingCycle(
            state, self.processes, self.suspend_support, withdrawals
        )
        self._settle = withdrawals.settle
        self.answer = withdrawals.answer
        self._delegate(cycle, withdrawals, show_names)

    def _delegate(
        self, cycle: SchedulingCycle, withdrawals: Withdrawals, show_names: bool
    ) -> None:
        """Build the parts that answer; their methods are the broker's."""
        state = self.host_state
        self.inventory = state.inventory
        self.leases = state.leases
        self.lease = state.lease
        self.request = state.request
        self.cycle = cycle.run
        self.snapshot = cycle.snapshot
        self.withdraw = withdrawals.withdraw
        self.withdraw_key = withdrawals.withdraw_key
        requests = Requests(state, cycle, withdrawals)
        self.waiting = requests.forecasts
        self.queue = requests.queued
        self.acquire = requests.acquire
        self.submit = requests.submit
        self.adopt = requests.adopt
        self.cancel = requests.cancel
        reservations = Reservations(state, cycle, withdrawals)
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
        leases = Leases(
            state, cycle, self.processes, withdrawals, self.not_enforced_action
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
            state, cycle, leases, self._watchdogs, show_names=show_names
        )
        self.drains = maintenance.drains
        self.mig = maintenance.mig
        self.usage_meter = maintenance.usage_meter
        self.maintain = maintenance.maintain
        self.usage = maintenance.usage
        self.recent_usage = maintenance.recent_usage
        self.record_usage = maintenance.record_usage

    def close(self) -> None:
        """Let go of the ledger and the drivers."""
        self._settle()
        with contextlib.suppress(AIStackError):
            self.usage_meter.transfer_metering()
        self.devices.close()
        self.ledger.close()
