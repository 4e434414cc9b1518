"""What queues and users hold, have used and may have: the fair shares and the limits.

What is held is what takes capacity: a suspended lease counts again when it waits to be
resumed, even above a limit, for limits are checked when a lease is granted. How many
slices a user may have counts them all.

What a queue is owed and may hold is of the devices of one host. Limits of users and past
use, which fair shares go by, are of all hosts that share a ledger.

The order among queues is that of the KAI scheduler: a queue below its deserved quota is
served first; what is left over goes by priority and then to the queue that has had
least of it for its weight, past use counting with a half-life.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind, Inventory
from jupyter_aistack.core.model.lease import Lease, NoticeKind
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import (
    Account,
    decayed_at,
    decayed_use,
    equivalents,
    used_in_week,
    week_of,
    week_start,
)

from .lease_ends import first_end
from .reservations import rough_size

NONE = Fraction(0)
Amounts = defaultdict[str, Fraction]
"""Device equivalents by queue or by user."""
UsedByUser = defaultdict[tuple[str, str], float]
"""Device-equivalent seconds, or devices held, by queue and user."""
DESERVED, BATCH_SHARE, INTERACTIVE, BATCH = range(4)
"""The tiers of queues, served in this order."""
LOOKAHEAD_SECONDS = 3600.0
"""What is held counts as if it had been used that much longer already, so that no user
takes all that is free at once; short against any half-life, so that in the long run it
is past use that decides."""


@dataclass(frozen=True, kw_only=True)
class QuotaCheck:
    """What keeps a request from being granted though there may be capacity.

    Attributes:
        reason: one sentence.
        frees_at: when it will not any more, in seconds since the epoch; None when that
            is unknown.
    """

    reason: str
    frees_at: float | None = None


class FairShare:
    """What every queue and user has at one moment; `charge` keeps it true while a plan
    is made.

    Args:
        policy: how slices are shared out.
        inventory: what there is to share.
        leases: what is held.
        accounts: what was used before.
        reservations: a queue is owed what is reserved for it while its window runs.
        now: seconds since the epoch.
        elsewhere: what is held on other hosts.

    Attributes:
        queues: the queues of the policy by name.
        held: device equivalents held here, by queue.
        users_devices: device equivalents held on all hosts, by user.
        users_slices: slices held on all hosts, by user.
    """

    def __init__(
        self,
        policy: Policy,
        inventory: Inventory,
        leases: Iterable[Lease],
        accounts: Iterable[Account],
        reservations: Iterable[Reservation],
        now: float,
        elsewhere: Iterable[Lease] = (),
    ) -> None:
        self.policy = policy
        self.now = now
        self.queues = {queue.name: queue for queue in policy.queues}
        self._leases = tuple(leases)
        self._elsewhere = tuple(elsewhere)
        gpus = inventory.of_kind(DeviceKind.GPU)
        self._device_count = len(gpus) or len(inventory.devices)

        # What is held now, and what was used before: by queue, by user, and by both.
        self.held: Amounts = defaultdict(Fraction)
        self.users_devices: Amounts = defaultdict(Fraction)
        self.users_slices: defaultdict[str, int] = defaultdict(int)
        self._users_held: UsedByUser = defaultdict(float)
        self._users_past: UsedByUser = defaultdict(float)
        self._queues_past: defaultdict[str, float] = defaultdict(float)
        self._week: defaultdict[str, float] = defaultdict(float)
        self._held_elsewhere: Amounts = defaultdict(Fraction)

        # What will change hands, and what is owed.
        self._incoming: Amounts = defaultdict(Fraction)
        self._outgoing: Amounts = defaultdict(Fraction)
        self._reserved: Amounts = defaultdict(Fraction)
        self.clear_promises()

        self._ranks: dict[str, tuple[float, ...]] = {}
        self._add_reservations(reservations)
        self._add_past(accounts)
        self._add_held(self._leases)
        self._add_elsewhere(self._elsewhere)

    def _add_reservations(self, reservations: Iterable[Reservation]) -> None:
        for reservation in reservations:
            if reservation.is_running(self.now):
                size = reservation.count * rough_size(reservation)
                self._reserved[reservation.queue] += size

    def _add_past(self, accounts: Iterable[Account]) -> None:
        half_life = self.policy.half_life_seconds
        week = week_of(self.now)
        for account in accounts:
            used = decayed_at(account, self.now, half_life)
            self._add_use(account.queue, account.user, used)
            if account.week == week:
                self._week[account.user] += account.week_seconds

    def _add_held(self, leases: Iterable[Lease]) -> None:
        """Leases come in few sizes: fractions are added once for each size of each
        user, not once for each lease.
        """
        counts: dict[tuple[str, str, tuple[int, int]], list[int]] = {}
        has_limits = bool(self.policy.limits)
        for lease in leases:
            size = equivalents(lease.occupied)
            whole = size
            if lease.is_away:
                whole = equivalents(lease.slices)
            ratio = size.as_integer_ratio()
            key = (lease.queue, lease.holder.user, ratio)
            count = counts.setdefault(key, [0, 0])
            count[0] += 1
            count[1] += len(lease.slices)
            self._add_running(lease, whole, has_limits)
            notice = lease.notice
            if notice is not None and notice.kind is NoticeKind.PREEMPT:
                self.expect_loss(lease.queue, size)

        for (queue, user, ratio), (number, slices) in counts.items():
            numerator, denominator = ratio
            total = Fraction(numerator * number, denominator)
            self.charge(queue, user, total, slices)

    def _add_elsewhere(self, leases: Iterable[Lease]) -> None:
        """What is held on other hosts takes nothing of the devices here, and counts as
        its users' and as use.
        """
        has_limits = bool(self.policy.limits)
        for lease in leases:
            size = equivalents(lease.occupied)
            whole = equivalents(lease.slices)
            self._add_running(lease, whole, has_limits)
            self._held_elsewhere[lease.queue] += size
            user = lease.holder.user
            self._charge_user(lease.queue, user, size, len(lease.slices))

    def _add_running(self, lease: Lease, size: Fraction, has_limits: bool) -> None:
        """The use of a lease that goes on."""
        now = self.now
        user = lease.holder.user
        since = lease.used_since(now)
        used = decayed_use(size, since, now, now, self.policy.half_life_seconds)
        self._add_use(lease.queue, user, used)
        if has_limits:
            self._week[user] += used_in_week(size, since, now, week_of(now))

    def _add_use(self, queue: str, user: str, decayed: float) -> None:
        self._users_past[queue, user] += decayed
        self._queues_past[queue] += decayed

    def charge(self, queue: str, user: str, size: Fraction, slices: int) -> None:
        """A user of a queue holds so much more."""
        self._ranks.clear()
        self.held[queue] += size
        self._charge_user(queue, user, size, slices)

    def _charge_user(self, queue: str, user: str, size: Fraction, slices: int) -> None:
        self.users_devices[user] += size
        self.users_slices[user] += slices
        self._users_held[queue, user] += float(size)

    def expect_gain(self, queue: str, size: Fraction) -> None:
        """A queue will get so much: capacity is being freed for it."""
        self._ranks.clear()
        self._incoming[queue] += size

    def expect_loss(self, queue: str, size: Fraction) -> None:
        """A queue will lose so much: a lease of it is being preempted; below 0 where
        that notice is withdrawn.
        """
        self._ranks.clear()
        self._outgoing[queue] += size

    def promise(self, queue: str, user: str, size: Fraction, slices: int) -> None:
        """Capacity is being freed for a user: it counts against limits as if it were
        held.
        """
        self._promised[queue] += size
        self._promised_devices[user] += size
        self._promised_slices[user] += slices

    def clear_promises(self) -> None:
        """Nothing is promised to anybody."""
        self._promised: Amounts = defaultdict(Fraction)
        self._promised_devices: Amounts = defaultdict(Fraction)
        self._promised_slices: defaultdict[str, int] = defaultdict(int)

    def expected(self, queue: str) -> Fraction:
        """What a queue will hold once the capacity being freed has changed hands."""
        return self.remaining(queue) + self._incoming[queue]

    def remaining(self, queue: str) -> Fraction:
        """What a queue holds and will keep, whatever is to come."""
        return self.held[queue] - self._outgoing[queue]

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
        expected = self.expected(queue)
        return expected < quota and expected + size <= quota

    def queue_rank(self, name: str) -> tuple[float, ...]:
        """Queues of lower rank are served first; the rank of a queue only grows while
        it is served.
        """
        rank = self._ranks.get(name)
        if rank is None:
            rank = self._queue_rank(name)
            self._ranks[name] = rank
        return rank

    def _queue_rank(self, name: str) -> tuple[float, ...]:
        queue = self.queues.get(name) or Queue(name=name)
        tier = self._tier(queue)
        held = self.held[name]
        if tier == DESERVED:
            share = held / self.quota(name)
            return tier, -queue.priority, float(share)
        everywhere = held + self._held_elsewhere[name]
        expected = float(everywhere) * LOOKAHEAD_SECONDS
        had = self._queues_past[name] + expected
        weight = float(queue.weight)
        return tier, -queue.priority, had / weight

    def _tier(self, queue: Queue) -> int:
        if self.is_deserved(queue.name):
            return DESERVED
        if not queue.is_batch:
            return INTERACTIVE
        batch = sum(
            (self.held[name] for name, other in self.queues.items() if other.is_batch),
            NONE,
        )
        kept_for_batch = self.policy.batch_share * self._device_count
        if batch < kept_for_batch:
            return BATCH_SHARE
        return BATCH

    def user_rank(self, queue: str, user: str) -> float:
        """Users of lower rank are served first within a queue: what they have had, and
        hold now.
        """
        held = self._users_held[queue, user]
        return self._users_past[queue, user] + held * LOOKAHEAD_SECONDS

    # -- limits ------------------------------------------------------------------------

    def check_limits(
        self, request: Request, size: Fraction, slices: int
    ) -> QuotaCheck | None:
        """What keeps `request`, which would hold so much, from being granted now; None
        for nothing.
        """
        by_queue = self._check_queue(request.queue, size)
        return by_queue or self._check_user(request.holder.user, size, slices)

    def excess(self, request: Request, size: Fraction) -> tuple[Fraction, Fraction]:
        """By how many devices `request` would bring its queue, and its user, above what
        they may hold; 0 for not.
        """
        user = request.holder.user
        by_queue = NONE
        queue = self.queues.get(request.queue)
        if queue is not None and queue.limit is not None:
            held = self.held[request.queue] + self._promised[request.queue]
            by_queue = max(NONE, held + size - queue.limit)

        by_user = NONE
        most = self.policy.limits_of(user).devices
        if most is not None:
            held = self.users_devices[user] + self._promised_devices[user]
            by_user = max(NONE, held + size - most)
        return by_queue, by_user

    def why_never(self, request: Request, size: Fraction, slices: int) -> str:
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

    def check_week(self, user: str) -> QuotaCheck | None:
        """Whether a user has used up the hours of this week."""
        hours = self.policy.limits_of(user).hours_per_week
        if hours is None or self._week[user] < hours * 3600:
            return None
        reason = f"{user} has used the {hours:g} device-hours a user may have in a week; they count anew from Monday"
        next_week = week_of(self.now) + 1
        return QuotaCheck(reason=reason, frees_at=week_start(next_week))

    def _check_queue(self, name: str, size: Fraction) -> QuotaCheck | None:
        queue = self.queues.get(name)
        if queue is None or queue.limit is None:
            return None
        held = self.held[name]
        all_held = held + self._promised[name] + size
        if all_held <= queue.limit:
            return None
        amount = _amount(held, self._promised[name])
        reason = (
            f"queue {name} {amount} of the {queue.limit} devices it may hold at once"
        )
        ends = first_end(lease for lease in self._leases if lease.queue == name)
        return QuotaCheck(reason=reason, frees_at=ends)

    def _check_user(self, user: str, size: Fraction, slices: int) -> QuotaCheck | None:
        limits = self.policy.limits_of(user)
        held_slices = self.users_slices[user]
        held_devices = self.users_devices[user]
        all_slices = held_slices + self._promised_slices[user] + slices
        all_devices = held_devices + self._promised_devices[user] + size

        most_slices = limits.slices
        most_devices = limits.devices
        if most_slices is not None and all_slices > most_slices:
            amount = _amount(held_slices, self._promised_slices[user])
            reason = (
                f"{user} {amount} of the {most_slices} slices a user may hold at once"
            )
        elif most_devices is not None and all_devices > most_devices:
            amount = _amount(held_devices, self._promised_devices[user])
            reason = (
                f"{user} {amount} of the {most_devices} devices a user may hold at once"
            )
        else:
            return self.check_week(user)
        all_leases = (*self._leases, *self._elsewhere)
        own = (lease for lease in all_leases if lease.holder.user == user)
        return QuotaCheck(reason=reason, frees_at=first_end(own))


def _amount(held: Fraction | int, promised: Fraction | int) -> str:
    """How much counts against a limit."""
    return f"holds {held} and is to get {promised}" if promised else f"holds {held}"
