"""The history of a ledger, replayed event by event: their sequence is the order in which
the ledger decided, whatever each process's clock said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.usage_history import Account, decayed_use, equivalents
from jupyter_aistack.ledger.lease_end import due_at
from jupyter_aistack.ledger.sql.ledger import SQLLedger

from .devices import DEVICES

EVERYTHING = 10**9
ENDINGS = {
    EventKind.LEASE_RELEASED,
    EventKind.LEASE_EXPIRED,
    EventKind.LEASE_PREEMPTED,
    EventKind.LEASE_FAILED,
    EventKind.LEASE_ABANDONED,
    EventKind.LEASE_RECLAIMED,
    EventKind.LEASE_LAPSED,
}


@dataclass
class Findings:
    """What the checker found; all zero and empty is what we want.

    Attributes:
        double_grants: grants of something that somebody else still held.
        alive_after_ttl: leases seen alive, or ended by other means, past their end.
        problems: anything else, one sentence each.
    """

    double_grants: int = 0
    alive_after_ttl: int = 0
    problems: list[str] = field(default_factory=list)


def check(ledger: SQLLedger, host: str, now: float) -> Findings:
    """Replay the whole history of a ledger, then let time end what still lives."""
    findings = Findings()
    ledger.leases(now)

    leases = {
        lease.id: lease for lease in ledger.leases(now, live=False, limit=EVERYTHING)
    }
    events = ledger.events(limit=EVERYTHING)
    findings.double_grants = replay(events, leases)
    findings.problems += incoherent(events, leases)
    findings.problems += miscounted(ledger.read(host, now).accounts, leases)
    late = [
        lease
        for lease in leases.values()
        if lease.is_expired(now) or (lease.ended_at or 0) > due_at(lease)
    ]
    findings.alive_after_ttl = len(late)
    return findings


def replay(events: Iterable[Event], leases: Mapping[str, Lease]) -> int:
    """How many grants gave away what was not free, in the order of the events."""
    held: dict[str, Lease] = {}
    doubles = 0
    for event in events:
        if event.kind is EventKind.LEASE_GRANTED:
            held[event.lease_id] = leases[event.lease_id]
            doubles += not is_within(list(held.values()), leases[event.lease_id])
        elif event.kind in ENDINGS:
            held.pop(event.lease_id, None)
    return doubles


def is_within(held: Sequence[Lease], newest: Lease) -> bool:
    """Whether the devices of the newest lease can hold all that is held on them."""
    touched = {slice_.device_id for slice_ in newest.slices}
    for device in DEVICES:
        slices = [
            slice_
            for lease in held
            for slice_ in lease.slices
            if slice_.device_id == device.id
        ]
        if device.id not in touched:
            continue
        if sum((slice_.fraction for slice_ in slices), Fraction(0)) > 1:
            return False
        if sum(slice_.memory_bytes for slice_ in slices) > device.memory_bytes:
            return False
        # All CPU specs here are whole cores, so no core may be in two leases.
        cores = Counter(
            core
            for slice_ in slices
            if slice_.kind is SliceKind.CPU
            for core in slice_.cores
        )
        if any(times > 1 for times in cores.values()):
            return False
    return True


def incoherent(events: Sequence[Event], leases: Mapping[str, Lease]) -> list[str]:
    """Where events and leases tell different stories."""
    granted = Counter(
        event.lease_id for event in events if event.kind is EventKind.LEASE_GRANTED
    )
    ended = Counter(event.lease_id for event in events if event.kind in ENDINGS)
    problems = []
    if granted != Counter(list(leases)):
        problems.append("leases without a grant, or granted twice")
    if ended != Counter(lease.id for lease in leases.values() if not lease.is_live):
        problems.append("leases that ended without an event, or twice")
    if len({lease.request_id for lease in leases.values()}) != len(leases):
        problems.append("a request was granted twice")
    order = [
        leases[event.lease_id].token
        for event in events
        if event.kind is EventKind.LEASE_GRANTED
    ]
    if order != sorted(set(order)):
        problems.append("tokens do not grow")
    return problems


def miscounted(accounts: Iterable[Account], leases: Mapping[str, Lease]) -> list[str]:
    """Whose account is not the sum of what their ended leases used, each counted
    once.
    """
    ended: dict[tuple[str, str], list[Lease]] = {}
    for lease in leases.values():
        if not lease.is_live:
            ended.setdefault((lease.holder.user, lease.queue), []).append(lease)
    known = {(account.user, account.queue): account for account in accounts}
    if known.keys() != ended.keys():
        return ["accounts without an ended lease, or the other way round"]
    return [
        f"the account of {user} in {queue} is not what their leases used"
        for (user, queue), mine in ended.items()
        if not math.isclose(
            known[user, queue].decayed,
            used_by(mine, known[user, queue].at),
            rel_tol=1e-6,
        )
    ]


def used_by(ended: Iterable[Lease], at: float) -> float:
    """What ended leases weigh at a time after they all have ended."""
    return sum(
        decayed_use(
            equivalents(lease.slices),
            lease.granted_at,
            lease.ended_at or 0.0,
            at,
            WEEK_SECONDS,
        )
        for lease in ended
    )
