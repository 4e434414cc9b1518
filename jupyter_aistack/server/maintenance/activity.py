"""Which leases are in use, seen from both sides: a cell runs in the kernel, or the
device works.

Only leases of this server's kernels are watched; what nobody watches is never idle. An
open page is no use, a silent cell is. Where a driver cannot tell how busy a slice is
(MIG), the kernel alone decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.device import Enforcement, SliceKind
from jupyter_aistack.core.model.lease import Lease, NoticeKind
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.scheduling.idle import idle_stage

TOUCH_SECONDS = 60.0
"""Between two notes of the same lease's use."""
WORKING = 0.01
CPU_WORKING = 0.05
"""Busy share from which a GPU slice, or a CPU slice, counts as working; a Python that
does nothing but keep a page's widgets up to date takes a hundredth or two of a core."""


@dataclass(frozen=True, kw_only=True)
class ActivitySample:
    """What was seen since the last turn.

    Attributes:
        kernels: the kernels of this server, whose leases are watched.
        busy: those of them in which something ran.
        usage: what each lease used lately, by id.
    """

    kernels: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    usage: Mapping[str, Usage] = field(default_factory=dict)


def to_touch(
    leases: Iterable[Lease], seen: ActivitySample, policy: Policy, now: float
) -> list[str]:
    """Ids of the leases whose use is to be noted now.

    A kernel and its workers are in use together. A lease that nobody has watched before
    is noted once, which starts its time.
    """
    watched = [(lease, _owner(lease.holder)) for lease in leases]
    watched = [(lease, owner) for lease, owner in watched if owner in seen.kernels]
    active = seen.busy | {
        owner for lease, owner in watched if _works(lease, seen.usage)
    }
    return [
        lease.id
        for lease, owner in watched
        if _is_due(lease, owner in active, policy, now)
    ]


def idle_leases(
    leases: Iterable[Lease], queues: Mapping[str, Queue], now: float
) -> int:
    """How many leases are worth a badge because nobody uses them."""
    return sum(
        idle_stage(lease, queues.get(lease.queue), now) != "" for lease in leases
    )


def _owner(holder: Holder) -> str:
    return holder.parent or holder.id


def _works(lease: Lease, usage: Mapping[str, Usage]) -> bool:
    if lease.enforced_by is Enforcement.SIMULATED:
        return False  # what a simulated device does is made up
    share = usage.get(lease.id, Usage()).utilization
    is_cpu = all(slice_.kind is SliceKind.CPU for slice_ in lease.slices)
    return share is not None and share > (CPU_WORKING if is_cpu else WORKING)


def _is_due(lease: Lease, is_active: bool, policy: Policy, now: float) -> bool:
    if lease.active_at is None:
        return True
    if not is_active:
        return False
    if lease.notice is not None and lease.notice.kind is NoticeKind.IDLE:
        return True
    queue = policy.queue(lease.queue)
    often = (
        TOUCH_SECONDS
        if queue is None or queue.idle is None
        else min(TOUCH_SECONDS, queue.idle.badge_seconds / 4)
    )
    return now - lease.active_at >= often
