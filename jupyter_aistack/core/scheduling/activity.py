"""Which leases are in use, seen from both sides: a cell runs in the kernel, or the
device works.

Only leases of this server's kernels are observed; what is not is never idle. An open
page is no use, a silent cell is. Where a driver cannot tell how busy a slice is (MIG
without GPM, several clients of one MPS server), a lease whose processes hold memory
there is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.device import Enforcement, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.scheduling.idle import (
    CPU_WORKING,
    GPU_WORKING,
    IdleStage,
    idle_stage,
    is_record_due,
)


@dataclass(frozen=True, kw_only=True)
class ActivitySample:
    """What was observed since the last turn.

    Attributes:
        user: whose kernels these are: those of another user may be called alike.
        kernels: the kernels of this server, whose leases are observed.
        busy: those of them in which something ran.
        usage: what each lease used lately, by id.
    """

    user: str
    kernels: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    usage: Mapping[str, Usage] = field(default_factory=dict)


def to_touch(
    leases: Iterable[Lease], sample: ActivitySample, policy: Policy, now: float
) -> list[str]:
    """Ids of the leases whose use is to be recorded now.

    A kernel and its workers are in use together. A lease that was not observed before
    is recorded once, which starts its time.
    """
    observed = [
        (lease, kernel_id)
        for lease in leases
        if (kernel_id := _kernel_of(lease.holder, sample))
    ]
    active = set(sample.busy)
    active.update(
        kernel_id for lease, kernel_id in observed if _works(lease, sample.usage)
    )
    return [
        lease.id
        for lease, kernel_id in observed
        if is_record_due(
            lease, policy.queue(lease.queue), now, is_active=kernel_id in active
        )
    ]


def idle_leases(
    leases: Iterable[Lease], queues: Mapping[str, Queue], now: float
) -> int:
    """How many leases are marked as idle."""
    return sum(
        idle_stage(lease, queues.get(lease.queue), now) is not IdleStage.IN_USE
        for lease in leases
    )


def _kernel_of(holder: Holder, sample: ActivitySample) -> str:
    """The observed kernel that a holder is, or belongs to; empty for none."""
    kernel_id = holder.parent or holder.id
    is_observed = kernel_id in sample.kernels
    if is_observed and holder.belongs_to(sample.user, kernel_id):
        return kernel_id
    return ""


def _works(lease: Lease, usage: Mapping[str, Usage]) -> bool:
    if lease.enforced_by is Enforcement.SIMULATED:
        return False  # what a simulated device does is made up
    used = usage.get(lease.id, Usage())
    is_cpu = all(slice_.kind is SliceKind.CPU for slice_ in lease.slices)
    if used.utilization is None:
        # What cannot be seen is taken to be in use; but a process that has opened no
        # GPU does no work there.
        return is_cpu or used.memory_bytes != 0
    return used.utilization > (CPU_WORKING if is_cpu else GPU_WORKING)
