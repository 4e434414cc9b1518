"""What looks after the processes of a host: which of them are a lease's, which hold more
than their lease has, and which have none.
"""

from __future__ import annotations

from collections.abc import Callable

from jupyter_aistack.core.enforcement.memory_limits import MemoryAction

from .host_state import HostState
from .liveness import holder_liveness
from .memory_watchdog import MemoryWatchdog
from .processes import HolderProcesses
from .strays import StrayMonitor, StrayOptions


class Watchdogs:
    """The watchdogs of one broker.

    Args:
        host_state: whose leases they see to.
        is_alive: whether a process (pid, start time) runs; None asks the system.
        memory_action: about processes that hold more GPU memory than their lease has.
        strays: how it is seen to processes without a lease.

    Attributes:
        memory: sees to leases whose processes hold more than they have.
        processes: finds the processes of leases.
        strays: sees to processes that have no lease.
    """

    def __init__(
        self,
        host_state: HostState,
        is_alive: Callable[[int, float | None], bool] | None,
        memory_action: MemoryAction,
        strays: StrayOptions,
    ) -> None:
        self.memory = MemoryWatchdog(host_state.ledger, host_state.now, memory_action)
        self.processes = HolderProcesses(
            host_state,
            liveness=holder_liveness(host_state.ledger, is_alive),
            orphans=self.memory.orphan_processes,
        )
        self.strays = StrayMonitor(host_state, self.processes, strays)
