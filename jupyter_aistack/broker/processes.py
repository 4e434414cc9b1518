"""The processes behind leases and requests: which are alive, and which use a lease."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from jupyter_aistack.core.model.foreign_memory import Holders
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.system.processes import tree

from .host_state import HostState

REAP_SECONDS = 1.0
"""How long a holder must have been seen dead before its lease ends: a kernel that
crashed is put in its server's name within milliseconds, and must not lose its slice to
a cycle that happens to run in between."""

SELF_HOLDING = (HolderKind.KERNEL, HolderKind.PROCESS)
"""Holders that use a lease by themselves; a worker or a run is another process than
the requester."""


class HolderProcesses:
    """The processes of this host's leases and requests.

    Args:
        host_state: provides the leases.
        is_alive: whether a process (pid, start time) still runs.
        orphans: the processes of a lease, by its id, that are outside its process tree.
    """

    def __init__(
        self,
        host_state: HostState,
        *,
        is_alive: Callable[[int, float | None], bool],
        orphans: Callable[[str], frozenset[int]],
    ) -> None:
        self._host_state = host_state
        self._is_alive = is_alive
        self._orphans = orphans
        self._lock = threading.Lock()
        self._dead_since: dict[str, float] = {}

    # -- who is alive ------------------------------------------------------------------

    def is_dead(self, holder: Holder) -> bool:
        """Whether the process of a holder has ended; False while none is known."""
        return holder.pid is not None and not self._is_alive(
            holder.pid, holder.pid_started_at
        )

    def reapable(self, items: Iterable[Lease | Request], now: float) -> frozenset[str]:
        """Ids of the leases and requests whose process has been seen dead for
        `REAP_SECONDS`.
        """
        dead = self._dead(items)
        with self._lock:
            self._dead_since = {
                item_id: self._dead_since.get(item_id, now) for item_id in dead
            }
            return frozenset(
                item_id
                for item_id, since in self._dead_since.items()
                if now - since >= REAP_SECONDS
            )

    def _dead(self, items: Iterable[Lease | Request]) -> set[str]:
        """Ids of those whose process has ended; each process is asked for once."""
        known: dict[tuple[int, float | None], bool] = {}
        dead = set()
        for item in items:
            holder = item.holder
            if holder.pid is None:
                continue

            process = (holder.pid, holder.pid_started_at)
            if process not in known:
                known[process] = self.is_dead(holder)
            if known[process]:
                dead.add(item.id)
        return dead

    # -- who uses a lease --------------------------------------------------------------

    def trees(self, leases: Iterable[Lease]) -> dict[str, frozenset[int]]:
        """The processes below each lease's root, by lease id, where a root is known.

        The processes of a worker belong to the worker's lease, and not to its kernel's
        too.
        """
        roots = {lease.id: root_pid(lease.holder) for lease in leases}
        return tree(
            {lease_id: pid for lease_id, pid in roots.items() if pid is not None}
        )

    def pids(self, leases: Iterable[Lease]) -> Mapping[str, frozenset[int]]:
        """Each lease's processes, where they are known yet; those outside its tree as
        the memory watchdog last saw them.
        """
        return {
            lease_id: pids | self._orphans(lease_id)
            for lease_id, pids in self.trees(leases).items()
        }

    def holders(self) -> Holders:
        """The processes of all live leases, and what these were granted of each device:
        memory that others hold is foreign.
        """
        leases = self._host_state.leases()
        granted: Counter[str] = Counter()
        for slice_ in (slice_ for lease in leases for slice_ in lease.occupied):
            granted[slice_.device_id] += slice_.memory_bytes
        ours = frozenset().union(*self.pids(leases).values())
        return Holders(ours=ours, granted=granted)


def root_pid(holder: Holder) -> int | None:
    """Root of the process tree that uses a lease; None while it is not known."""
    if holder.root_pid:
        return holder.root_pid
    return holder.pid if holder.kind in SELF_HOLDING else None


def running_pid(holder: Holder) -> int | None:
    """The process that uses the lease and runs already; None where this process only
    stands in for a kernel to come.
    """
    pid = root_pid(holder)
    is_this_kernel = holder.id == os.environ.get("AISTACK_KERNEL")
    is_stand_in = (
        pid == os.getpid() and holder.kind is HolderKind.KERNEL and not is_this_kernel
    )
    return None if is_stand_in else pid
