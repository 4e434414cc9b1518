"""One cycle of the broker, as a function: a snapshot in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease, Notice, NoticeKind, Outcome
from jupyter_aistack.core.model.plan import (
    Action,
    End,
    Grant,
    Notify,
    Plan,
    Reject,
    Snapshot,
    TransferAction,
    WithdrawNotice,
    grant_to_lease,
)
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.core.model.usage_history import Account, charged, equivalents
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.suspend.build import build_suspend_input, start_transfers
from jupyter_aistack.core.suspend.placement import transfer_actions, with_transfers
from jupyter_aistack.core.suspend.transfers import TransferPlan

from .fair_share import FairShare
from .idle import (
    exempt_from_reclaim,
    has_idle_notice,
    idle_notice,
    idle_seconds,
    is_reclaimable,
    was_used_since_notice,
)
from .lease_ends import ended_at, may_end_by_notice, reason_of, why_over
from .queue_pass import serve_queue

RECLAIMED = "reclaimed: idle"
PREEMPTED = "the capacity was needed by a higher-priority request"
UNNEEDED = "the capacity is no longer needed"
SUSPENDED_INSTEAD = "it is suspended instead"
USED_AGAIN = "it is in use again"
OWED_AGAIN = "its queue is owed it now"


def plan(
    snapshot: Snapshot,
    now: float,
    *,
    ttl_seconds: float,
    cache: PlacementCache | None = None,
) -> Plan:
    """What should happen at `now`. Pure: the same snapshot gives the same plan.

    Leases past their end, without a living holder, or whose notice is over end first.
    Then suspended leases that are wanted are resumed, or have idle leases suspended, as
    :mod:`.suspend` decides; the waiting are served as :mod:`.queue_pass` orders them,
    and notices of leases that are no longer needed are withdrawn.

    Args:
        ttl_seconds: how long a new lease lives unless renewed.
        cache: what earlier plans have worked out about the devices; kept for later
            plans.
    """
    live = [lease for lease in snapshot.leases if lease.is_live]
    host = build_suspend_input(snapshot, live)
    upkeep = list(
        _Upkeep(
            snapshot,
            live,
            now,
            exempt=exempt_from_reclaim(
                live, host, may_suspend=snapshot.suspend is not None
            ),
        ).actions()
    )
    held = _after(upkeep, live)
    if len(held) != len(live):
        # What has ended leaves its devices and the host's memory to others.
        host = build_suspend_input(snapshot, held)
    if upkeep:
        snapshot = _snapshot_after(snapshot, upkeep, held, now)

    # Transfers begin before the queue is served: what is wanted back has been granted
    # already, and comes before anything new.
    transfers = start_transfers(host, snapshot, now)
    begun: list[TransferAction] = []
    if transfers is not None:
        transfers.begin()
        begun = list(transfer_actions(transfers.steps, held))
        held = with_transfers(begun, held)

    served = _serve(
        snapshot,
        held,
        now,
        ttl_seconds=ttl_seconds,
        cache=cache or PlacementCache(),
        transfers=transfers,
    )
    return Plan(version=snapshot.version, actions=(*upkeep, *begun, *served))


def _serve(
    snapshot: Snapshot,
    held: list[Lease],
    now: float,
    *,
    ttl_seconds: float,
    cache: PlacementCache,
    transfers: TransferPlan | None,
) -> list[Action]:
    """Serve the queue until no notice is left for a request that has been decided: each
    lease that may stay after all may change what the others get.
    """
    actions: list[Action] = []
    while True:
        served = serve_queue(
            snapshot,
            held,
            now,
            ttl_seconds=ttl_seconds,
            cache=cache,
            transfers=transfers,
        )
        actions += served
        held = _held_after(served, held, now)
        decided = {_decided_request(action) for action in served}
        unneeded = [
            _withdraw(lease, UNNEEDED)
            for lease in held
            if lease.notice and lease.notice.request_id in decided
        ]
        if not unneeded:
            return actions
        actions += unneeded
        held = _after(unneeded, held)
        waiting = [each for each in snapshot.requests if each.id not in decided]
        snapshot = replace(snapshot, requests=tuple(waiting))


def _snapshot_after(
    snapshot: Snapshot, upkeep: Sequence[Action], held: Sequence[Lease], now: float
) -> Snapshot:
    """The snapshot once the upkeep is done.

    Leases that end stay in it with their notices: what is freed is for the requests
    they were preempted for.
    """
    notices = [action for action in upkeep if not isinstance(action, End)]
    return replace(
        snapshot,
        leases=tuple(_after(notices, snapshot.leases)),
        accounts=_charged(snapshot, upkeep, now),
    )


def _charged(
    snapshot: Snapshot, upkeep: Iterable[Action], now: float
) -> tuple[Account, ...]:
    """The accounts once the leases that end are charged to their users."""
    endings = {
        action.lease_id: action.outcome for action in upkeep if isinstance(action, End)
    }
    accounts = {(account.user, account.queue): account for account in snapshot.accounts}
    half_life = snapshot.policy.half_life_seconds
    for lease in snapshot.leases:
        outcome = endings.get(lease.id)
        if outcome is not None:
            key = (lease.holder.user, lease.queue)
            account = accounts.get(key) or Account(user=key[0], queue=key[1])
            ended = replace(lease, ended_at=ended_at(lease, outcome, now))
            accounts[key] = charged(account, ended, half_life)
    return tuple(accounts.values())


def _decided_request(action: Action) -> str | None:
    """The request that an action decides; None for an action that decides none."""
    if isinstance(action, Grant):
        return action.request.id
    if isinstance(action, Reject):
        return action.request_id
    return None


def _held_after(
    served: Sequence[Action], held: Sequence[Lease], now: float
) -> list[Lease]:
    """The leases held once the queue has been served, new leases included."""
    transfers = [each for each in served if isinstance(each, TransferAction)]
    granted = [
        grant_to_lease(action, "", 0, now)
        for action in served
        if isinstance(action, Grant)
    ]
    return [*with_transfers(transfers, _after(served, held)), *granted]


def _after(actions: Iterable[Action], leases: Sequence[Lease]) -> list[Lease]:
    """The leases once `actions` have ended them, or given or withdrawn notices."""
    notices: dict[str, Notice | None] = {}
    ended = set()
    for action in actions:
        if isinstance(action, End):
            ended.add(action.lease_id)
        elif isinstance(action, Notify):
            notices[action.lease_id] = action.notice
        elif isinstance(action, WithdrawNotice):
            notices[action.lease_id] = None
    if not ended and not notices:
        return list(leases)
    return [
        replace(lease, notice=notices[lease.id]) if lease.id in notices else lease
        for lease in leases
        if lease.id not in ended
    ]


class _Upkeep:
    """What must happen to leases whatever waits.

    Args:
        snapshot: what there is.
        live: the live leases of it.
        now: seconds since the epoch.
        exempt: leases that are not reclaimed for being idle.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        live: Sequence[Lease],
        now: float,
        *,
        exempt: frozenset[str],
    ) -> None:
        self._snapshot = snapshot
        self._live = live
        self._now = now
        self._exempt = exempt
        self._queues = {queue.name: queue for queue in snapshot.policy.queues}

    def actions(self) -> Iterator[Action]:
        """All of it, in the order in which it must be applied."""
        # A lease that ends needs no notice, and its queue is owed that much more: so
        # endings come first.
        ended = list(self._end_over())
        yield from ended
        held = _after(ended, self._live)
        preempted = [lease for lease in held if _is_preempted(lease)]
        if preempted:
            yield from self._withdraw_unneeded_preemptions(preempted)
            yield from self._end_preempted(preempted, held)
        yield from self._notify_idle(held)

    def _end_over(self) -> Iterator[End]:
        """Leases past their end, without a holder that lives as far as can be seen, or
        notified that they are idle and still not used.
        """
        now = self._now
        snapshot = self._snapshot
        for lease in self._live:
            outcome = why_over(
                lease,
                now,
                is_dead=lease.id in snapshot.dead,
                is_unvouched=lease.id in snapshot.unvouched,
            )
            if outcome is not None:
                yield _end(lease, outcome, reason_of(outcome))
            elif self._is_reclaimed(lease):
                yield _end(lease, Outcome.RECLAIMED, RECLAIMED)

    def _is_reclaimed(self, lease: Lease) -> bool:
        now = self._now
        may_end = lease.id not in self._exempt and may_end_by_notice(lease, now)
        return may_end and is_reclaimable(lease, now)

    def _withdraw_unneeded_preemptions(
        self, preempted: Iterable[Lease]
    ) -> Iterator[WithdrawNotice]:
        """Leases may stay whose request has gone, or that are suspended meanwhile."""
        waiting = self._waiting()
        for lease in preempted:
            if not _is_needed(lease, waiting):
                yield _withdraw(lease, UNNEEDED)
            elif lease.is_away:
                yield _withdraw(lease, SUSPENDED_INSTEAD)

    def _end_preempted(
        self, preempted: Iterable[Lease], held: Sequence[Lease]
    ) -> Iterator[End | WithdrawNotice]:
        """Leases that a waiting request needs end in time, unless their queue has come
        to be owed them.
        """
        waiting = self._waiting()
        snapshot = self._snapshot
        fair_share = FairShare(
            snapshot.policy,
            snapshot.inventory,
            held,
            (),
            snapshot.reservations,
            self._now,
        )
        for lease in preempted:
            if lease.is_away or not _is_needed(lease, waiting):
                continue
            queue = lease.queue
            if fair_share.remaining(queue) < fair_share.quota(queue):
                fair_share.expect_loss(queue, -equivalents(lease.slices))
                yield _withdraw(lease, OWED_AGAIN)
            elif self._is_preempted_now(lease):
                yield _end(lease, Outcome.PREEMPTED, PREEMPTED)

    def _is_preempted_now(self, lease: Lease) -> bool:
        now = self._now
        is_over = _is_notice_over(lease, now) and may_end_by_notice(lease, now)
        return is_over and not _is_leaving(lease)

    def _notify_idle(self, held: Iterable[Lease]) -> Iterator[Notify | WithdrawNotice]:
        """Notices to the holders of idle leases of when these will be reclaimed, and
        withdrawals where that will not be.
        """
        for lease in held:
            is_exempt = lease.id in self._exempt
            if lease.notice is None:
                if lease.active_at is not None and not is_exempt:
                    yield from self._notify_if_idle(lease)
            elif is_exempt and has_idle_notice(lease):
                yield _withdraw(lease, SUSPENDED_INSTEAD)
            elif not is_exempt and was_used_since_notice(lease):
                yield _withdraw(lease, USED_AGAIN)

    def _notify_if_idle(self, lease: Lease) -> Iterator[Notify]:
        notice = idle_notice(lease, self._queues.get(lease.queue), self._now)
        if notice is not None:
            seconds = idle_seconds(lease, self._now) or 0.0
            detail = f"idle for {format_duration(seconds)}"
            yield Notify(
                lease_id=lease.id, token=lease.token, notice=notice, detail=detail
            )

    def _waiting(self) -> set[str]:
        ids = {request.id for request in self._snapshot.requests}
        return ids - self._snapshot.dead


def _is_preempted(lease: Lease) -> bool:
    return lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT


def _is_needed(lease: Lease, waiting: set[str]) -> bool:
    """Whether the request that a lease is preempted for still waits."""
    return lease.notice is not None and lease.notice.request_id in waiting


def _is_notice_over(lease: Lease, now: float) -> bool:
    return lease.notice is not None and now >= lease.notice.ends_at


def _is_leaving(lease: Lease) -> bool:
    """Whether its state is being moved out: its capacity is free as soon, and nothing
    of it is lost.
    """
    return lease.residence is not None and lease.residence.phase is StatePhase.PARKING


def _withdraw(lease: Lease, detail: str) -> WithdrawNotice:
    return WithdrawNotice(lease_id=lease.id, token=lease.token, detail=detail)


def _end(lease: Lease, outcome: Outcome, detail: str) -> End:
    return End(lease_id=lease.id, token=lease.token, outcome=outcome, detail=detail)
