"""Queues: what each is owed, what it may hold, and when its leases count as idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

DEFAULT_QUEUE = "default"
EVERYBODY = "*"
WEEK_SECONDS = 7 * 86400.0


class GpuSharing(StrEnum):
    """Who may have leases of one GPU at the same time."""

    ANY_USER = "any-user"
    SAME_USER = "same-user"  # one user at a time


@dataclass(frozen=True, kw_only=True)
class IdlePolicy:
    """When an unused lease is reclaimed; seconds since it was last in use.

    Attributes:
        badge_seconds: it is shown as idle.
        notice_seconds: its holder is told when it will be reclaimed, and may extend it.
        reclaim_seconds: it ends.
    """

    badge_seconds: float = 30 * 60.0
    notice_seconds: float = 55 * 60.0
    reclaim_seconds: float = 60 * 60.0


@dataclass(frozen=True, kw_only=True)
class Queue:
    """An ordering domain.

    Attributes:
        name: what `Request.queue` names.
        quota: device equivalents it is owed: below that it is served first, and its
            leases are never preempted.
        limit: most device equivalents its leases may hold at once; None for no limit.
        weight: its share of what is left over, beside the other queues of its priority;
            above 0.
        priority: of what is left over, queues of higher priority take first.
        is_open: whether it takes requests.
        is_batch: its requests give way to interactive ones, but for the share that is
            kept for batch.
        members: who may use it: login names, or ``@group`` for a Unix group (a
            project); empty for every user.
        idle: when its idle leases are reclaimed; None for never.
        suspend: its kernels may be suspended while they are idle, where the host can do
            that.
    """

    name: str
    quota: Fraction = Fraction(0)
    limit: Fraction | None = None
    weight: Fraction = Fraction(1)
    priority: int = 0
    is_open: bool = True
    is_batch: bool = False
    members: frozenset[str] = frozenset()
    idle: IdlePolicy | None = field(default_factory=IdlePolicy)
    suspend: bool = False

    def admits(self, user: str, groups: frozenset[str] = frozenset()) -> bool:
        """Whether `user`, who is in these Unix groups, may use it."""
        return (
            not self.members
            or user in self.members
            or any(f"@{group}" in self.members for group in groups)
        )


@dataclass(frozen=True, kw_only=True)
class UserLimits:
    """What one user may have; None for no limit.

    Attributes:
        slices: slices held at once.
        devices: device equivalents held at once.
        hours_per_week: device-equivalent hours in a calendar week (Monday to Sunday,
            UTC).
        queued: requests waiting at once.
    """

    slices: int | None = None
    devices: Fraction | None = None
    hours_per_week: float | None = None
    queued: int | None = None


NO_LIMITS = UserLimits()


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How an admin wants slices shared out.

    Attributes:
        queues: all queues.
        limits: limits by login name; ``"*"`` holds for all other users.
        half_life_seconds: use this long ago counts half in fair shares.
        batch_share: share of the host's devices kept for batch queues while they ask
            for it, 0 to 1.
        notice_seconds: between the notice of a preemption and the preemption.
        min_runtime_seconds: a preemptible lease is left alone this long.
        age_seconds: a request that has waited this long is served before all that have not.
        gpu_sharing: who may have leases of one GPU at the same time; instances of MIG
            are GPUs of their own.
    """

    queues: tuple[Queue, ...] = (Queue(name=DEFAULT_QUEUE),)
    limits: Mapping[str, UserLimits] = field(default_factory=dict)
    half_life_seconds: float = WEEK_SECONDS
    batch_share: Fraction = Fraction(0)
    notice_seconds: float = 60.0
    min_runtime_seconds: float = 600.0
    age_seconds: float = 86400.0
    gpu_sharing: GpuSharing = GpuSharing.ANY_USER

    def queue(self, name: str) -> Queue | None:
        return next((queue for queue in self.queues if queue.name == name), None)

    def limits_of(self, user: str) -> UserLimits:
        return self.limits.get(user) or self.limits.get(EVERYBODY) or NO_LIMITS

    def queue_for(
        self, user: str, groups: frozenset[str] = frozenset()
    ) -> Queue | None:
        """The queue of a user who names none: the first that lists them, else
        ``default``, else any that takes them.
        """
        listed = [
            queue
            for queue in self.queues
            if queue.members and queue.admits(user, groups)
        ]
        open_to_all = [queue for queue in self.queues if not queue.members]
        default = [queue for queue in open_to_all if queue.name == DEFAULT_QUEUE]
        return next(iter([*listed, *default, *open_to_all]), None)


@dataclass(frozen=True, kw_only=True)
class SuspendPolicy:
    """When to suspend, and how much memory to leave.

    Attributes:
        warm_seconds: a lease is left alone this long after its last use or return,
            whatever waits (hysteresis).
        hard_seconds: after so long without use it is suspended though nothing waits.
        context_bytes, margin_share: what a restore needs beside its state: the driver's
            context, and a share of it. None for the context's size as it was measured
            on the host; it is none where nothing was, as on simulated devices.
        host_share: most of the host's available memory that suspended state may take, 0
            to 1.
        host_bytes: memory that the host may have in all, where it grows as it is used;
            None for what it has.
        lock_seconds: how long to wait for a kernel's device work to end before giving
            up.
        retry_seconds, longest_retry_seconds: pause after a first such failure, doubled
            by each further one, at most so long.
    """

    warm_seconds: float = 60.0
    hard_seconds: float = 30 * 60.0
    context_bytes: int | None = None
    margin_share: float = 0.05
    host_share: float = 0.6
    host_bytes: int | None = None
    lock_seconds: float = 5.0
    retry_seconds: float = 10.0
    longest_retry_seconds: float = 600.0
