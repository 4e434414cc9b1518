"""Where queues and users stand: what they hold, what they have used, what they may
have.

What is held is what takes room: a suspended lease counts again when it waits to come
back, even above a limit, for a
limit is looked at when a lease is granted. How many slices a user may have counts them
all.

The order among queues is that of the KAI scheduler: who is below its deserved quota
goes first; what is left over goes
by priority and then to whoever has had least of it for their weight, past use counting
with a half-life.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Inventory
from jupyter_aistack.core.model.lease import Lease, NoticeKind
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Unit
from jupyter_aistack.core.model.usage_history import (
    Account,
    decayed_at,
    decayed_use,
    equivalents,
    used_in_week,
    week_of,
    week_start,
)

NONE = Fraction(0)
DESERVED, BATCH_SHARE, INTERACTIVE, BATCH = range(4)
LOOKAHEAD_SECONDS = 3600.0
"""What is held counts as if it had been used that much longer already, so that nobody
takes all that is free at once; short against any half-life, so that in the long run it
is past use that decides."""


@dataclass(frozen=True, kw_only=True)
class QuotaCheck:
    """What keeps a request from being granted though there may be room.

    Attributes:
        reason: one sentence.
        frees_at: when it will not any more, in seconds since the epoch; None when
            nobody can say.
    """

    reason: str
    frees_at: float | None = None


class FairShare:
    """What everybody holds at one moment; `charge` keeps it true while a plan is made.

    Args:
        policy: how slices are shared out.
        inventory: what there is to share.
        leases: what is held.
        accounts: what was used before.
        reservations: a queue is owed what is reserved for it while its window runs.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        policy: Policy,
        inventory: Inventory,
        leases: Iterable[Lease],
        accounts: Iterable[Account],
        reservations: Iterable[Reservation],
        now: float,
    ) -> None:
        self.policy = policy
        self.now = now
        self.queues = {queue.name: queue for queue in policy.queues}
        self.held: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.users_devices: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.users_slices: defaultdict[str, int] = defaultdict(int)
        self._users_held: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._users_past: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._queues_past: defaultdict[str, float] = defaultdict(float)
        self._week: defaultdict[str, float] = defaultdict(float)
        self._leases = tuple(leases)
        self._capacity = len(inventory.of_kind(DeviceKind.GPU)) or len(
            inventory.devices
        )
        self._ranks: dict[str, tuple[float, ...]] = {}
        self._coming: defaultdict[str, Fraction] = defaultdict(Fraction)
        self._leaving: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.forget_promises()
        self._reserved: defaultdict[str, Fraction] = defaultdict(Fraction)
        for reservation in reservations:
            if reservation.is_running(now):
                self._reserved[reservation.queue] += reservation.count * _rough_size(
                    reservation
                )
        self._add_past(accounts)
        self._add_held(self._leases)

    def _add_past(self, accounts: Iterable[Account]) -> None:
        half_life = self.policy.half_life_seconds
        week = week_of(self.now)
        for account in accounts:
            self._add_use(
                account.queue, account.user, decayed_at(account, self.now, half_life)
            )
            if account.week == week:
                self._week[account.user] += account.week_seconds

    def _add_held(self, leases: Iterable[Lease]) -> None:
        """Leases come in few sizes: fractions are added once for each size of each
        user, not once for each lease.
        """
        counts: defaultdict[tuple[str, str, int, int], list[int]] = defaultdict(
            lambda: [0, 0]
        )
        half_life = self.policy.half_life_seconds
        limits = self.policy.limits
        week = week_of(self.now)
        for lease in leases:
            size = equivalents(lease.occupied)
            user = lease.holder.user
            whole = equivalents(lease.slices) if lease.is_away else size
            count = counts[lease.queue, user, size.numerator, size.denominator]
            count[0] += 1
            count[1] += len(lease.slices)
            since = lease.used_since(self.now)
            self._add_use(
                lease.queue,
                user,
                decayed_use(whole, since, self.now, self.now, half_life),
            )
            if limits:
                self._week[user] += used_in_week(whole, since, self.now, week)
            if lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT:
                self.leave(lease.queue, size)
        for (queue, user, numerator, denominator), (number, slices) in counts.items():
            self.charge(queue, user, Fraction(numerator * number, denominator), slices)

    def _add_use(self, queue: str, user: str, decayed: float) -> None:
        self._users_past[queue, user] += decayed
        self._queues_past[queue] += decayed

    def charge(self, queue: str, user: str, size: Fraction, slices: int) -> None:
        """Somebody holds so much more."""
        self._ranks.clear()
        self.held[queue] += size
        self.users_devices[user] += size
        self.users_slices[user] += slices
        self._users_held[queue, user] += float(size)

    def come(self, queue: str, size: Fraction) -> None:
        """So much is about to come to a queue: room is being made for it."""
        self._ranks.clear()
        self._coming[queue] += size

    def leave(self, queue: str, size: Fraction) -> None:
        """So much is about to leave a queue: it was asked back; below 0 for what is let
        be after all.
        """
        self._ranks.clear()
        self._leaving[queue] += size

    def promise(self, queue: str, user: str, size: Fraction, slices: int) -> None:
        """Room is being made for somebody: it counts against limits as if it were
        held.
        """
        self._promised[queue] += size
        promised = self._promised_to[user]
        self._promised_to[user] = promised[0] + size, promised[1] + slices

    def forget_promises(self) -> None:
        """Nothing is promised to anybody."""
        self._promised: defaultdict[str, Fraction] = defaultdict(Fraction)
        self._promised_to: defaultdict[str, tuple[Fraction, int]] = defaultdict(
            lambda: (NONE, 0)
        )

    def bound(self, queue: str) -> Fraction:
        """What a queue will hold once the room that is being made has changed hands."""
        return self.staying(queue) + self._coming[queue]

    def staying(self, queue: str) -> Fraction:
        """What a queue holds and will keep, whatever is to come."""
        return self.held[queue] - self._leaving[queue]

    # -- order -------------------------------------------------------------------------

    def quota(self, queue: str) -> Fraction:
        """What a queue is owed now."""
        known = self.queues.get(queue)
        return (known.quota if known else NONE) + self._reserved[queue]

    def is_deserved(self, queue: str, size: Fraction = NONE) -> bool:
        """Whether a queue is below its quota, and would not be above it with `size`
        more.
        """
        quota = self.quota(queue)
        bound = self.bound(queue)
        return bound < quota and bound + size <= quota

    def queue_rank(self, name: str) -> tuple[float, ...]:
        """Queues of lower rank are served first; the rank of a queue only grows while
        it is served.
        """
        rank = self._ranks.get(name)
        if rank is None:
            rank = self._ranks[name] = self._queue_rank(name)
        return rank

    def _queue_rank(self, name: str) -> tuple[float, ...]:
        queue = self.queues.get(name) or Queue(name=name)
        tier = self._tier(queue)
        if tier == DESERVED:
            return tier, -queue.priority, float(self.held[name] / self.quota(name))
        had = (
            self._queues_past[name] + float(self.held[name]) * LOOKAHEAD_SECONDS
        ) / float(queue.weight)
        return tier, -queue.priority, had

    def _tier(self, queue: Queue) -> int:
        if self.is_deserved(queue.name):
            return DESERVED
        if not queue.is_batch:
            return INTERACTIVE
        batch = sum(
            (self.held[name] for name, other in self.queues.items() if other.is_batch),
            NONE,
        )
        return (
            BATCH_SHARE if batch < self.policy.batch_share * self._capacity else BATCH
        )

    def user_rank(self, queue: str, user: str) -> float:
        """Users of lower rank are served first within a queue: what they have had, and
        hold now.
        """
        return (
            self._users_past[queue, user]
            + self._users_held[queue, user] * LOOKAHEAD_SECONDS
        )

    # -- limits ------------------------------------------------------------------------

    def limit(self, request: Request, size: Fraction, slices: int) -> QuotaCheck | None:
        """What keeps `request`, which would hold so much, from being granted now; None
        for nothing.
        """
        return self._queue_limit(request.queue, size) or self._user_limit(
            request.holder.user, size, slices
        )

    def excess(self, request: Request, size: Fraction) -> tuple[Fraction, Fraction]:
        """By how many devices `request` would bring its queue, and its user, above what
        they may hold; 0 for not.
        """
        queue = self.queues.get(request.queue)
        user = request.holder.user
        most = self.policy.limits_of(user).devices
        by_queue = self.held[request.queue] + self._promised[request.queue] + size
        by_user = self.users_devices[user] + self._promised_to[user][0] + size
        return (
            NONE
            if queue is None or queue.limit is None
            else max(NONE, by_queue - queue.limit),
            NONE if most is None else max(NONE, by_user - most),
        )

    def never(self, request: Request, size: Fraction, slices: int) -> str:
        """Why `request` could not be granted even if its user and its queue held
        nothing; empty when it could.
        """
        queue = self.queues.get(request.queue)
        limits = self.policy.limits_of(request.holder.user)
        if queue is not None and queue.limit is not None and size > queue.limit:
            return f"queue {queue.name} may hold {queue.limit} devices at once"
        if limits.devices is not None and size > limits.devices:
            return f"a user may hold {limits.devices} devices at once here"
        if limits.slices is not None and slices > limits.slices:
            return f"a user may hold {limits.slices} slices at once here"
        return ""

    def week_limit(self, user: str) -> QuotaCheck | None:
        """Whether a user has used up the hours of this week."""
        hours = self.policy.limits_of(user).hours_per_week
        if hours is None or self._week[user] < hours * 3600:
            return None
        reason = f"{user} has used the {hours:g} device-hours a user may have in a week; they count anew from Monday"
        return QuotaCheck(reason=reason, frees_at=week_start(week_of(self.now) + 1))

    def _queue_limit(self, name: str, size: Fraction) -> QuotaCheck | None:
        queue = self.queues.get(name)
        if (
            queue is None
            or queue.limit is None
            or self.held[name] + self._promised[name] + size <= queue.limit
        ):
            return None
        ends = _ends(lease for lease in self._leases if lease.queue == name)
        held = f"queue {name} holds {self.held[name]} of the {queue.limit} devices it may hold at once"
        return QuotaCheck(reason=held, frees_at=ends)

    def _user_limit(self, user: str, size: Fraction, slices: int) -> QuotaCheck | None:
        limits = self.policy.limits_of(user)
        held = self.users_slices[user]
        devices = self.users_devices[user]
        to_come, slices_to_come = self._promised_to[user]
        if limits.slices is not None and held + slices_to_come + slices > limits.slices:
            reason = f"{user} holds {held} of the {limits.slices} slices a user may hold at once"
        elif limits.devices is not None and devices + to_come + size > limits.devices:
            reason = f"{user} holds {devices} of the {limits.devices} devices a user may hold at once"
        else:
            return self.week_limit(user)
        return QuotaCheck(
            reason=reason,
            frees_at=_ends(
                lease for lease in self._leases if lease.holder.user == user
            ),
        )


def ends_at(lease: Lease) -> float:
    """When a lease is known to end; infinity when it is not."""
    ends = [lease.ends_at, lease.notice.ends_at if lease.notice else None]
    return min((at for at in ends if at is not None), default=math.inf)


def _ends(leases: Iterable[Lease]) -> float | None:
    end = min((ends_at(lease) for lease in leases), default=math.inf)
    return None if math.isinf(end) else end


def _rough_size(reservation: Reservation) -> Fraction:
    """Device equivalents of one of its slices; memory and profiles count as a whole
    device, which errs on its side.
    """
    spec = reservation.spec
    if spec.unit is Unit.FRACTION:
        return spec.amount * spec.count
    return spec.amount if spec.unit is Unit.DEVICES else Fraction(spec.count)
