"""The watchdog over what the processes of each lease hold: measures, says it on the
lease, and names who is to act.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import (
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace

from jupyter_aistack.core.accounting.measurement import (
    memory_by_unit,
    usage_by_lease,
)
from jupyter_aistack.core.enforcement.memory_limits import (
    Judgement,
    MemoryAction,
    MemoryFill,
    PressureLevel,
    WatchedLease,
    evaluate_lowered,
    evaluate_memory,
    fullest,
    granted_together,
    memory_condition,
    memory_update,
)
from jupyter_aistack.core.model.condition import Condition, ConditionKind
from jupyter_aistack.core.model.device import Enforcement, ProcessUse, SliceKind
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.sample import HostSample
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.system.process_origin import leases_named_by
from jupyter_aistack.system.process_users import uid_of
from jupyter_aistack.system.processes import (
    cgroup_of,
    program_of,
    started_at,
)

from .liveness import is_here, root_pid

GPU_SECONDS = 1.5
"""Between two looks at GPUs at least; a server's turn comes every 2 seconds."""
HOST_SECONDS = 10.0
"""The same for what is measured in all, such as the host's memory."""


@dataclass(frozen=True, kw_only=True)
class MemoryBreach:
    """Something to be done about a process that holds what its lease does not have.

    Attributes:
        lease: the lease.
        action: what; never ``warn``.
        process: about whom.
        started_at: when that process started, so that no other process is taken for it.
        is_root: it is the kernel's own process.
    """

    lease: Lease
    action: MemoryAction
    process: ProcessUse
    started_at: float | None
    is_root: bool


Trees = Mapping[str, frozenset[int]]
"""The processes below each lease's root, by lease id, where they are known."""


class MemoryWatchdog:
    """Checks all leases of a host against their memory.

    Args:
        ledger: where breaches are recorded.
        clock: seconds since the epoch.
        action: what is done about breaches on GPUs; the host's memory is warned of
            only.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        action: MemoryAction,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._action = action
        self._watched: dict[str, WatchedLease] = {}
        self._breaches: dict[int, MemoryBreach] = {}
        self._strays: dict[str, frozenset[int]] = {}
        self._by_process: set[str] = set()
        self._looked_at = float("-inf")
        self._host_looked_at = float("-inf")

    def check(self, leases: Sequence[Lease], sample: Callable[[], HostSample]) -> None:
        """Check what is due, and record what is new. What cannot be measured is
        reported, and stops nothing.

        Args:
            leases: the host's live leases.
            sample: gives what the devices report; called only when a check is due.
        """
        self._forget_ended({lease.id for lease in leases})
        now = self._clock()
        # A clock that was set back makes everything due.
        is_gpu_due = not 0 <= now - self._looked_at < GPU_SECONDS
        is_host_due = not 0 <= now - self._host_looked_at < HOST_SECONDS
        on_gpu = [lease for lease in leases if _is_on_gpu(lease)]
        checks_gpus = is_gpu_due and bool(on_gpu)
        checks_host = is_host_due and bool(leases)
        if not checks_gpus and not checks_host:
            return

        # Asked for only now: a sample walks all processes of the host.
        measured = sample()
        if checks_gpus:
            self._looked_at = now
            self._check_by_process(on_gpu, measured)
        if checks_host:
            # After the GPUs: a lease that was checked there is not checked twice.
            self._host_looked_at = now
            self._check_in_all(leases, measured)

    def _forget_ended(self, live: Container[str]) -> None:
        self._watched = {i: each for i, each in self._watched.items() if i in live}
        self._breaches = {
            pid: breach
            for pid, breach in self._breaches.items()
            if breach.lease.id in live
        }

    def orphan_processes(self, lease_id: str) -> frozenset[int]:
        """Processes of a lease outside its tree, as of the last look."""
        return self._strays.get(lease_id, frozenset())

    def take_breaches(
        self, is_own: Callable[[Lease], bool] = lambda lease: True
    ) -> tuple[MemoryBreach, ...]:
        """What is to be done, once; for a caller that can interrupt a cell or end a
        process.

        Args:
            is_own: whether the caller can do so for the holder of a lease.
        """
        taken = {
            pid: breach
            for pid, breach in self._breaches.items()
            if is_own(breach.lease)
        }
        for pid in taken:
            self._breaches.pop(pid, None)
        return tuple(taken.values())

    def done(self, lease: Lease, words: str) -> None:
        """Say on a lease what was done about its breach."""
        watched = self._watched.get(lease.id, WatchedLease())
        if watched.condition is None:
            return
        message = f"{watched.condition.message}; {words}"
        update = memory_update(replace(watched.condition, message=message))
        with contextlib.suppress(LeaseError):  # it has ended since
            self._ledger.bind(lease.id, lease.token, self._clock(), conditions=update)

    def not_yet(self, lease: Lease) -> None:
        """Nothing could be done about a lease's breach now: it is handed over again
        after the next look.
        """
        if (watched := self._watched.get(lease.id)) is not None:
            self._watched[lease.id] = replace(watched, acted_on=None)

    # -- GPUs, process by process ------------------------------------------------------

    def _trees(self, leases: Iterable[Lease], sample: HostSample) -> Trees:
        """The processes below each lease's root when the sample was taken."""
        return {
            lease.id: sample.pids[lease.id] - self.orphan_processes(lease.id)
            for lease in leases
            if lease.id in sample.pids
        }

    def _check_by_process(self, leases: Sequence[Lease], sample: HostSample) -> None:
        trees = self._trees(leases, sample)
        held = memory_by_unit(sample, [s for lease in leases for s in lease.slices])
        listed = {pid for processes in held.values() for pid in processes or ()}
        self._strays = find_orphan_processes(leases, trees, listed)
        self._by_process = set()
        rooted = [lease for lease in leases if lease.id in trees]
        for group in _together(rooted, trees):
            self._check_group(group, self._pids_of(group, trees), held)

    def _pids_of(self, group: Sequence[Lease], trees: Trees) -> frozenset[int]:
        parts = [trees[lease.id] | self.orphan_processes(lease.id) for lease in group]
        return frozenset().union(*parts)

    def _check_group(
        self,
        group: Sequence[Lease],
        pids: frozenset[int],
        held: Mapping[str, Mapping[int, int | None] | None],
    ) -> None:
        """Check leases that the same processes use: they have one limit together."""
        now = self._clock()
        granted = granted_together(_tolerated(group, now))
        if not granted.keys() & held.keys():
            return  # no provider lists processes there

        self._by_process |= {lease.id for lease in group}
        listed = frozenset().union(*(processes or () for processes in held.values()))
        programs = {pid: program_of(pid) for pid in pids & listed}
        fill = fullest(granted, held, pids, programs)
        lowered = granted_together(_allowed(group))
        above = fullest(lowered, held, pids, programs)
        for lease in group:
            self._judge(lease, fill, above, self._action)

    def _check_in_all(self, leases: Sequence[Lease], sample: HostSample) -> None:
        """The host's memory, and devices whose processes no provider can list; they are
        measured all together.
        """
        used = usage_by_lease(sample, leases)
        for lease in leases:
            memory = used[lease.id].memory_bytes
            if memory is not None and lease.id not in self._by_process:
                now = self._clock()
                tolerated = sum(lease.tolerated_bytes(s, now) for s in lease.slices)
                allowed = sum(s.memory_bytes for s in lease.effective_slices)
                fill = MemoryFill(memory_bytes=memory, granted_bytes=tolerated)
                above = replace(fill, granted_bytes=allowed)
                self._judge(lease, fill, above, MemoryAction.WARN)

    # -- saying it ---------------------------------------------------------------------

    def _judge(
        self,
        lease: Lease,
        fill: MemoryFill | None,
        above: MemoryFill | None,
        action: MemoryAction,
    ) -> None:
        """Judge a lease by what is tolerated now, or where that is more than it may use
        from now on, by the latter (`above`).
        """
        before = self._watched.get(lease.id, WatchedLease())
        holder = lease.holder
        is_kernel = holder.kind is HolderKind.KERNEL
        root = root_pid(holder) if is_kernel else None
        label = holder.label or f"{holder.kind.value} {holder.id}"
        now = self._clock()
        left = _grace_left(lease, now)
        if left and _is_above_only(fill, above):
            assert above is not None
            judgement = evaluate_lowered(
                before, above, label=label, seconds_left=left, now=now
            )
        else:
            judgement = evaluate_memory(
                before, fill, action=action, label=label, root=root, now=now
            )
        self._watched[lease.id] = judgement.watched
        self._say(lease, judgement)
        if (process := judgement.culprit) is not None:
            self._breaches[process.pid] = MemoryBreach(
                lease=lease,
                action=action,
                process=process,
                started_at=started_at(process.pid),
                is_root=process.pid == root,
            )

    def _say(self, lease: Lease, judgement: Judgement) -> None:
        """Record it as a condition of the lease, and as an event; another broker of
        this host may have recorded it already.
        """
        condition = judgement.watched.condition
        known = memory_condition(lease)
        if _kind(condition) is _kind(known):
            return
        update = memory_update(condition)
        now = self._clock()
        with contextlib.suppress(LeaseError):  # it ended just now
            if judgement.is_worse:
                kind = _EVENTS[judgement.watched.level]
                self._ledger.remark(
                    lease.id, lease.token, now, kind, update.text, conditions=update
                )
            else:
                self._ledger.bind(lease.id, lease.token, now, conditions=update)


def _tolerated(leases: Iterable[Lease], now: float) -> Iterator[tuple[str, int]]:
    """Bytes that may be held now, by UUID."""
    for lease in leases:
        for slice_ in lease.slices:
            if slice_.uuid:
                yield slice_.uuid, lease.tolerated_bytes(slice_, now)


def _allowed(leases: Iterable[Lease]) -> Iterator[tuple[str, int]]:
    """Bytes that may be used from now on, by UUID."""
    for lease in leases:
        for slice_ in lease.effective_slices:
            if slice_.uuid:
                yield slice_.uuid, slice_.memory_bytes


def _grace_left(lease: Lease, now: float) -> float:
    """For how long what it held before its limit fell is left alone; 0 for none."""
    lefts = [limit.grace_left(now) for limit in lease.limits]
    return max(lefts, default=0.0)


def _is_above_only(fill: MemoryFill | None, above: MemoryFill | None) -> bool:
    """Whether more is held than may be used from now on, and no more than is
    tolerated.
    """
    if fill is None or above is None:
        return False
    return above.share > 1 >= fill.share


def _kind(condition: Condition | None) -> ConditionKind | None:
    return None if condition is None else condition.kind


_EVENTS = {
    PressureLevel.NEAR: EventKind.LEASE_NEAR_MEMORY,
    PressureLevel.OVER: EventKind.LEASE_OVER_MEMORY,
}


def find_orphan_processes(
    leases: Iterable[Lease], trees: Trees, listed: Iterable[int]
) -> dict[str, frozenset[int]]:
    """Processes on a device's list that belong to a lease though they are not below its
    root.

    They are its user's and name it in their environment, or, where a control group
    holds it (L3), are in its group.
    """
    rooted = frozenset().union(*trees.values())
    named = {pid: leases_named_by(pid) for pid in listed if pid not in rooted}
    return (
        {lease.id: frozenset(_strays_of(lease, named)) for lease in leases}
        if named
        else {}
    )


def _strays_of(lease: Lease, named: Mapping[int, frozenset[str]]) -> Iterator[int]:
    root = lease.holder.root_pid or lease.holder.pid
    if root is None or not is_here(lease.holder):
        return
    owner = uid_of(root)
    group = cgroup_of(root) if lease.enforced_by is Enforcement.L3 else b""
    has_own_group = bool(group) and group != cgroup_of(os.getpid())
    for pid, leases in named.items():
        is_named = lease.id in leases and owner is not None and uid_of(pid) == owner
        if is_named or (has_own_group and cgroup_of(pid) == group):
            yield pid


def _together(leases: Iterable[Lease], trees: Trees) -> Iterable[list[Lease]]:
    """The leases by the processes that use them: two leases of one kernel have one
    bound.
    """
    groups: dict[frozenset[int], list[Lease]] = {}
    for lease in leases:
        groups.setdefault(trees[lease.id], []).append(lease)
    return groups.values()


def _is_on_gpu(lease: Lease) -> bool:
    return any(slice_.kind is not SliceKind.CPU for slice_ in lease.slices)
