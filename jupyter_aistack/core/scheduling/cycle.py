"""One turn of the broker, as a function: a snapshot in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseState,
    Notice,
    NoticeKind,
    Outcome,
)
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
from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.core.model.usage_history import Account, charged, equivalents
from jupyter_aistack.core.suspend.build import build_suspend_input, start_transfers
from jupyter_aistack.core.suspend.feasibility import not_suspendable
from jupyter_aistack.core.suspend.model import HostMemory, SuspendCandidate
from jupyter_aistack.core.suspend.placement import after_moves, begun

from .fair_share import FairShare
from .idle import NOTICED, stage, was_used_since_notice
from .queue_pass import decide


def plan(snapshot: Snapshot, now: float, *, ttl_seconds: float) -> Plan:
    """What should happen at `now`. Pure: the same snapshot gives the same plan.

    Leases past their time, without a living holder, or whose notice is over end first.
    Then suspended ones that are wanted come back, or have idle ones suspended, as
    :mod:`.suspend` decides; the waiting are served as :mod:`.schedule` orders them, and
    leases that were asked back for those who need them no longer are let be.
    """
    live = [lease for lease in snapshot.leases if lease.is_live]
    house = build_suspend_input(snapshot, live)
    actions: list[Action] = list(_upkeep(snapshot, live, house, now))
    held = _after(actions, live)
    moves = start_transfers(
        house if len(held) == len(live) else build_suspend_input(snapshot, held),
        snapshot,
        now,
    )
    told = [
        action for action in actions if not isinstance(action, End)
    ]  # what ends now is for whom it was asked back
    accounts = _charged(snapshot, {lease.id for lease in held}, now)
    snapshot = (
        replace(
            snapshot, leases=tuple(_after(told, snapshot.leases)), accounts=accounts
        )
        if actions
        else snapshot
    )
    if moves is not None:
        moves.begin()
        moved = list(begun(moves.operations, held))
        actions += moved
        held = after_moves(moved, held)
    while True:
        decided = decide(snapshot, held, now, ttl_seconds=ttl_seconds, moves=moves)
        actions += decided
        gone = {_request_of(action) for action in decided}
        held = after_moves(
            (one for one in decided if isinstance(one, TransferAction)),
            _after(decided, held),
        ) + [
            grant_to_lease(action, "", 0, now)
            for action in decided
            if isinstance(action, Grant)
        ]
        let_be = [
            _withdraw(lease, _UNNEEDED)
            for lease in held
            if lease.notice and lease.notice.request_id in gone
        ]
        if not let_be:
            return Plan(version=snapshot.version, actions=tuple(actions))
        actions += let_be
        held = _after(let_be, held)
        snapshot = replace(
            snapshot, requests=tuple(r for r in snapshot.requests if r.id not in gone)
        )


def _charged(snapshot: Snapshot, staying: set[str], now: float) -> tuple[Account, ...]:
    """The accounts once the leases that do not stay are charged: who held them has used
    them.
    """
    accounts = {(account.user, account.queue): account for account in snapshot.accounts}
    for lease in snapshot.leases:
        if lease.is_live and lease.id not in staying:
            key = lease.holder.user, lease.queue
            account = accounts.get(key) or Account(user=key[0], queue=key[1])
            accounts[key] = charged(
                account, replace(lease, ended_at=now), snapshot.policy.half_life_seconds
            )
    return tuple(accounts.values())


_UNNEEDED = "nobody needs its room any more"
_SUSPENDED = "it is suspended instead"


def _request_of(action: Action) -> str | None:
    """The request that an action decides; None for one that decides none."""
    if isinstance(action, Grant):
        return action.request.id
    return action.request_id if isinstance(action, Reject) else None


def _after(actions: Iterable[Action], leases: Iterable[Lease]) -> list[Lease]:
    """The live leases after what `actions` say of them."""
    notices: dict[str, Notice | None] = {}
    ended = set()
    for action in actions:
        if isinstance(action, End):
            ended.add(action.lease_id)
        elif isinstance(action, Notify | WithdrawNotice):
            notices[action.lease_id] = (
                action.notice if isinstance(action, Notify) else None
            )
    if not ended and not notices:
        return list(leases)
    staying = [lease for lease in leases if lease.id not in ended]
    return [
        replace(lease, notice=notices[lease.id]) if lease.id in notices else lease
        for lease in staying
    ]


def _upkeep(
    snapshot: Snapshot, live: list[Lease], house: HostMemory | None, now: float
) -> Iterator[Action]:
    """What must happen to leases whoever waits."""
    spared = _spared(snapshot, live, house)
    over = list(_over(snapshot, spared, now))
    yield from over
    held = _after(over, live)
    queues = {queue.name: queue for queue in snapshot.policy.queues}
    asked_back = [
        lease
        for lease in held
        if lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT
    ]
    if asked_back:
        waiting = {request.id for request in snapshot.requests} - snapshot.dead
        needed = [
            lease
            for lease in asked_back
            if lease.notice and lease.notice.request_id in waiting
        ]
        yield from (
            _withdraw(lease, _UNNEEDED) for lease in asked_back if lease not in needed
        )
        yield from (_withdraw(lease, _SUSPENDED) for lease in needed if lease.is_away)
        yield from _taken_back(
            [lease for lease in needed if not lease.is_away], held, snapshot, now
        )
    for lease in held:
        if lease.id in spared:
            if lease.notice is not None and lease.notice.kind is NoticeKind.IDLE:
                yield _withdraw(lease, _SUSPENDED)
        elif lease.notice is not None and was_used_since_notice(lease):
            yield _withdraw(lease, "it is in use again")
        elif lease.notice is None and lease.active_at is not None:
            idle = (
                queues[lease.queue].idle
                if stage(lease, queues.get(lease.queue), now) == NOTICED
                else None
            )
            if idle is not None:
                yield _idle_notice(lease, lease.active_at, idle, now)


def _spared(
    snapshot: Snapshot, live: Iterable[Lease], house: HostMemory | None
) -> frozenset[str]:
    """Leases that are not taken back for being idle: they are suspended instead, or are
    so already.
    """
    if house is None:
        return frozenset()
    with_residence = {lease.id for lease in live if lease.residence is not None}
    stuck = (
        not_suspendable(house)[1] if snapshot.suspend is not None else with_residence
    )
    tenants = [one for one in house.tenants if one.lease_id in with_residence]
    return frozenset(
        one.lease_id for one in tenants if _is_spared(one, one.lease_id in stuck)
    )


def _is_spared(tenant: SuspendCandidate, is_stuck: bool) -> bool:
    if tenant.phase is StatePhase.RESIDENT:
        return not tenant.pinned and not is_stuck
    return tenant.phase is not StatePhase.LOST


def _over(snapshot: Snapshot, spared: frozenset[str], now: float) -> Iterator[End]:
    """Leases past their time, without a living holder, or told that they are idle and
    still not used.
    """
    for lease in snapshot.leases:
        if lease.is_expired(now):
            yield _end(lease, Outcome.EXPIRED, "its time was up")
        elif lease.id in snapshot.dead and lease.is_live:
            yield _end(lease, Outcome.ABANDONED, "its process has ended")
        elif lease.id not in spared and _is_unused_to_the_end(lease, now):
            yield _end(lease, Outcome.RECLAIMED, "nobody used it")


def _is_unused_to_the_end(lease: Lease, now: float) -> bool:
    notice = lease.notice
    is_over = (
        notice is not None and notice.kind is NoticeKind.IDLE and now >= notice.ends_at
    )
    return (
        is_over
        and not was_used_since_notice(lease)
        and lease.state is not LeaseState.RELEASING
    )


def _idle_notice(
    lease: Lease, active_at: float, idle: IdlePolicy, now: float
) -> Notify:
    ends_at = max(
        active_at + idle.reclaim_seconds,
        now + idle.reclaim_seconds - idle.notice_seconds,
    )
    detail = f"nobody has used it for {format_duration(now - active_at)}"
    notice = Notice(kind=NoticeKind.IDLE, at=now, ends_at=ends_at)
    return Notify(lease_id=lease.id, token=lease.token, notice=notice, detail=detail)


def _taken_back(
    needed: Iterable[Lease], held: Iterable[Lease], snapshot: Snapshot, now: float
) -> Iterator[Action]:
    """Leases that were asked back for one who waits: they end in time, unless their
    queue has come to be owed them.
    """
    standing = FairShare(
        snapshot.policy, snapshot.inventory, held, (), snapshot.reservations, now
    )
    for lease in needed:
        if standing.staying(lease.queue) < standing.quota(lease.queue):
            standing.leave(lease.queue, -equivalents(lease.slices))
            yield _withdraw(lease, "its queue is owed it now")
        elif (
            lease.notice is not None
            and now >= lease.notice.ends_at
            and not _is_leaving(lease)
        ):
            yield _end(
                lease,
                Outcome.PREEMPTED,
                "its room was needed by a request that goes first",
            )


def _is_leaving(lease: Lease) -> bool:
    """Whether its state is on its way out: its room is free as soon, and nothing of it
    is lost.
    """
    return lease.residence is not None and lease.residence.phase is StatePhase.PARKING


def _withdraw(lease: Lease, detail: str) -> WithdrawNotice:
    return WithdrawNotice(lease_id=lease.id, token=lease.token, detail=detail)


def _end(lease: Lease, outcome: Outcome, detail: str) -> End:
    return End(lease_id=lease.id, token=lease.token, outcome=outcome, detail=detail)
