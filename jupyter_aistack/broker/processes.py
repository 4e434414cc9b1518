"""The processes behind leases and requests: which are alive, and which use a lease."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from jupyter_aistack.core.model.foreign_memory import Holders
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.system.processes import tree

from .host_state import HostState
from .liveness import root_pid

REAP_SECONDS = 1.0
"""How long a kernel must have been seen dead before its renewed lease ends: one that
crashed is put in its server's name within milliseconds, and must not lose its slice to
a cycle that happens to run in between."""
LAPSE_SHARE = 1 / 3
"""For this share of the TTL a lease must have been seen unrenewed before it lapses: after
a pause of the whole host, those who keep leases that only they can see need a moment."""


@dataclass(frozen=True, kw_only=True)
class HolderVerdicts:
    """Which leases and requests have nobody who holds them.

    Attributes:
        dead: ids of those whose process is known to have ended, and of the requests
            whose process nobody has seen though there was time to.
        unvouched: ids of the leases whose process cannot be seen from here, and that
            nobody has renewed though there was time to.
    """

    dead: frozenset[str]
    unvouched: frozenset[str]


class _Sightings:
    """Since when something has been seen at every look.

    Args:
        longest_gap: after more seconds without a look, what was seen before says
            nothing: the looking process itself may have been stopped.
    """

    def __init__(self, longest_gap: float = math.inf) -> None:
        self._longest_gap = longest_gap
        self._looked_at = -math.inf
        self._since: dict[str, float] = {}

    def update(self, ids: Iterable[str], now: float) -> Mapping[str, float]:
        """Note what is seen at `now`; since when, by id. A clock that was set back
        begins anew.
        """
        is_broken = now - self._looked_at > self._longest_gap
        known = {} if is_broken else self._since
        self._since = {each: min(known.get(each, now), now) for each in ids}
        self._looked_at = now
        return self._since


class HolderProcesses:
    """The processes of this host's leases and requests.

    Args:
        host_state: provides the leases.
        liveness: whether the process of a holder lives.
        orphans: the processes of a lease, by its id, that are outside its process tree.
    """

    def __init__(
        self,
        host_state: HostState,
        *,
        liveness: Callable[[Holder], Liveness],
        orphans: Callable[[str], frozenset[int]],
    ) -> None:
        self._host_state = host_state
        self._liveness = liveness
        self._orphans = orphans
        self._lock = threading.Lock()
        self._left: set[str] = set()
        self._gone = _Sightings()
        self._late = _Sightings(longest_gap=host_state.ttl_seconds * LAPSE_SHARE)

    # -- who is alive ------------------------------------------------------------------

    def liveness(self, holder: Holder) -> Liveness:
        """Whether the process of a holder lives; unknown while none is named."""
        return self._liveness(holder)

    def gone(self, items: Iterable[Lease | Request]) -> frozenset[str]:
        """Ids of the leases and requests whose process is known to have ended, those
        included that may be put in another's name in a moment.
        """
        gone, _ = self._not_alive(items)
        return frozenset(item.id for item in gone)

    def verdicts(
        self, leases: Iterable[Lease], requests: Iterable[Request], now: float
    ) -> HolderVerdicts:
        """Which leases and requests have nobody who holds them, at `now` (seconds since
        the epoch); to be asked about all of the host's.
        """
        # Who waits and names no process is unknown, and never late.
        named = [request for request in requests if request.holder.pid is not None]
        gone, unknown = self._not_alive((*leases, *named))
        late = [item for item in unknown if _is_late(item, now)]
        with self._lock:
            gone_since = self._gone.update((item.id for item in gone), now)
            late_since = self._late.update((item.id for item in late), now)
        dead = {
            item.id
            for item in gone
            if not _may_return(item, now) or now - gone_since[item.id] >= REAP_SECONDS
        }
        patience = self._host_state.ttl_seconds * LAPSE_SHARE
        lost = [
            item
            for item in late
            if item.holder.pid is None or now - late_since[item.id] >= patience
        ]
        lost_requests = {item.id for item in lost if isinstance(item, Request)}
        lost_leases = {item.id for item in lost if isinstance(item, Lease)}
        return HolderVerdicts(
            dead=frozenset(dead | lost_requests), unvouched=frozenset(lost_leases)
        )

    def _not_alive(
        self, items: Iterable[Lease | Request]
    ) -> tuple[list[Lease | Request], list[Lease | Request]]:
        """Those whose process has ended, and those of which that is unknown; each
        process is looked for once.
        """
        # Each cycle sees all that wait: no identity is made of each, and nothing is kept
        # of the living.
        liveness_of: dict[tuple[object, ...], Liveness] = {}
        gone: list[Lease | Request] = []
        unknown: list[Lease | Request] = []
        for item in items:
            holder = item.holder
            process = (
                holder.pid,
                holder.pid_started_at,
                holder.boot_id,
                holder.pid_namespace,
            )
            liveness = liveness_of.get(process)
            if liveness is None:
                liveness = self.liveness(holder)
                liveness_of[process] = liveness
            if liveness is Liveness.ALIVE:
                continue
            (gone if liveness is Liveness.GONE else unknown).append(item)
        return gone, unknown

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

    @contextmanager
    def left_by(self, lease_id: str) -> Iterator[None]:
        """A block in which a lease ends whose devices are closed: whatever its processes
        still use is foreign already, as what is left is granted with its end.
        """
        self._left.add(lease_id)
        try:
            yield
        finally:
            self._left.discard(lease_id)

    def holders(self) -> Holders:
        """The processes of all live leases, and what these may hold of each device:
        memory that others hold is foreign.
        """
        left = frozenset(self._left)
        leases = [each for each in self._host_state.leases() if each.id not in left]
        granted: Counter[str] = Counter()
        now = self._host_state.now()
        for lease in leases:
            for slice_ in lease.occupied:
                tolerated = lease.tolerated_bytes(slice_, now)
                granted[slice_.device_id] += tolerated
        pids = self.pids(leases)
        ours = frozenset().union(*pids.values())
        on_device = processes_by_device(leases, pids)
        return Holders(ours=ours, granted=granted, on_device=on_device)


def processes_by_device(
    leases: Iterable[Lease], pids: Mapping[str, frozenset[int]]
) -> dict[str, frozenset[int]]:
    """The processes of the leases of each device, by its id. Those of a lease that is
    suspended stay: the driver lists them still.
    """
    by_device: dict[str, frozenset[int]] = {}
    for lease in leases:
        own = pids.get(lease.id, frozenset())
        for device_id in {slice_.device_id for slice_ in lease.slices}:
            by_device[device_id] = by_device.get(device_id, frozenset()) | own
    return by_device


def _may_return(item: Lease | Request, now: float) -> bool:
    """Whether somebody may be about to put a lease in a living process's name."""
    is_renewed = isinstance(item, Lease) and item.is_renewed(now)
    return is_renewed and item.holder.kind is HolderKind.KERNEL


def _is_late(item: Lease | Request, now: float) -> bool:
    """Whether somebody should have spoken for it: a lease is not renewed any more, or a
    request names a process.
    """
    if isinstance(item, Lease):
        return not item.is_renewed(now)
    return item.holder.pid is not None


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
