"""Which moves begin now: who waits comes back, or has idle ones suspended; one move at
a time on each device.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.plan import TransferDirection

from .feasibility import TransferStep, not_suspendable
from .model import HostMemory, SuspendCandidate, needed_bytes, promised_bytes, retry_at

MOST_LEAVING = 16
"""How many are suspended at once for requests that wait: all their state goes through
the memory of one host.
"""


def decide(house: HostMemory, now: float) -> tuple[TransferStep, ...]:
    """The moves to begin at `now` (seconds since the epoch); pure. At most one runs on
    each device at a time.

    Whoever waits is served in order. One that cannot be yet has a claim on its devices,
    so that later ones do not pass it there, but only as long as something runs, rests
    or moves on them: that will end, and then it is looked at again. A claim where all
    stands still could hold up the very ones that must go on before it can be served.
    """
    moves = TransferPlan(house, now)
    moves.begin()
    return tuple(moves.operations)


class TransferPlan:
    """The moves that begin at one moment, and what they leave.

    Args:
        house: the host, at that moment.
        now: seconds since the epoch.
        may_park: False where nobody is suspended any more; who is comes back all the
            same.

    Attributes:
        operations: what has been decided so far.
    """

    def __init__(self, house: HostMemory, now: float, *, may_park: bool = True) -> None:
        self.now = now
        self.may_park = may_park
        self.operations: list[TransferStep] = []
        self._first = house
        self._tenants = {tenant.lease_id: tenant for tenant in house.tenants}
        self._now: HostMemory | None = house
        self._stuck: frozenset[str] | None = None
        self._idle: list[SuspendCandidate] | None = None
        self._claimed: set[str] = set()
        self._moving = {
            device
            for tenant in house.tenants
            if tenant.is_moving
            for device in tenant.devices
        }
        self._host_left = house.host_bytes - house.parked_bytes

    @property
    def moving(self) -> Collection[str]:
        """The devices on which something moves."""
        return self._moving

    @property
    def house(self) -> HostMemory:
        """The host with all that has been decided."""
        if self._now is None:
            self._now = replace(self._first, tenants=tuple(self._tenants.values()))
        return self._now

    def tenant(self, lease_id: str) -> SuspendCandidate | None:
        """The tenant of that id, as it is now."""
        return self._tenants.get(lease_id)

    def add(self, tenant: SuspendCandidate) -> None:
        """Somebody moves in."""
        self._tenants[tenant.lease_id] = tenant
        self._now = self._stuck = self._idle = None

    def begin(self) -> None:
        """Whoever waits comes back, or has others parked; then who must go goes, and
        who is idle for long.
        """
        tenants = sorted(self._tenants.values(), key=_line)
        for tenant in tenants:
            if tenant.phase is StatePhase.PARKED and tenant.wanted_at is not None:
                self._serve(tenant)
        hard = self._first.policy.hard_seconds
        idle = (t for t in tenants if t.must_go or self.now - t.active_at >= hard)
        for tenant in sorted(
            idle, key=lambda one: (not one.must_go, *_least_recent(one))
        ):
            if (
                self._may_go(tenant)
                and self._fits_host(tenant)
                and self._claimed.isdisjoint(tenant.devices)
            ):
                self._park(tenant)

    # -- for a newcomer ----------------------------------------------------------------

    def idle(self) -> list[SuspendCandidate]:
        """Who could be parked for a newcomer, now or when what moves there has moved,
        least recently used first.
        """
        if not self.may_park:
            return []
        if self._idle is None:
            self._idle = sorted(
                (t for t in self._tenants.values() if self._is_spare(t)),
                key=_least_recent,
            )
        return self._idle

    @property
    def is_full(self) -> bool:
        """Whether so many leave already that no more are told to go for those who
        wait.
        """
        return (
            sum(one.phase is StatePhase.PARKING for one in self._tenants.values())
            >= MOST_LEAVING
        )

    def would_fit_host(self, tenants: Iterable[SuspendCandidate]) -> bool:
        """Whether the host could hold the state of all of them as well."""
        return sum(_copied(tenant) for tenant in tenants) <= self._host_left

    def asked_back(self, lease_ids: Iterable[str]) -> list[SuspendCandidate]:
        """These have been asked back: they go as soon as they are idle. The tenants
        among them.
        """
        asked = [
            one
            for lease_id in sorted(lease_ids)
            if (one := self._tenants.get(lease_id)) is not None
        ]
        asked = [replace(one, must_go=True) for one in asked if one.is_subject]
        for one in asked:
            self.add(one)
        return asked

    def free_device(self, tenants: Iterable[SuspendCandidate]) -> None:
        """Park those of `tenants` that can go now: one on each device. The others' turn
        comes next time.
        """
        for tenant in tenants:
            if self._may_go(tenant) and self._fits_host(tenant):
                self._park(tenant)

    def after(
        self, ended: Collection[str], parked: Iterable[SuspendCandidate] = ()
    ) -> HostMemory:
        """The host once these leases have ended, and these tenants are parked."""
        then = self._tenants | {
            tenant.lease_id: replace(tenant, phase=StatePhase.PARKED)
            for tenant in parked
        }
        return replace(
            self._first, tenants=tuple(one for i, one in then.items() if i not in ended)
        )

    # -- one after the other -----------------------------------------------------------

    def _serve(self, tenant: SuspendCandidate) -> None:
        """Bring a waiting tenant back, or park whoever is in its way, or let it
        wait.
        """
        if not self._claimed.isdisjoint(tenant.devices):
            return
        if not self._moving.isdisjoint(tenant.devices):
            self._claimed.update(tenant.devices)
        elif not any(self._lacks(tenant, device) for device in tenant.devices):
            self._begin(TransferDirection.RESUME, tenant, StatePhase.RESTORING)
        else:
            victims = self._victims(tenant)
            for victim in victims:
                self._park(victim)
            if victims or any(
                self._will_end(other) for other in self._on(tenant.devices)
            ):
                self._claimed.update(tenant.devices)

    def _lacks(self, tenant: SuspendCandidate, device: str) -> int:
        """Bytes that are missing on a device for `tenant` to come back; 0 for none."""
        card = self._first.cards[device]
        policy = self._first.policy
        taken = sum(other.memory_bytes for other in self._on([device]))
        budget = card.budget_bytes - taken - promised_bytes(tenant, card, policy)
        return max(
            0, -min(budget, card.free_bytes - needed_bytes(tenant, card, policy))
        )

    def _victims(self, tenant: SuspendCandidate) -> Sequence[SuspendCandidate]:
        """Whom to park now for `tenant`, least recently used first: one on each device;
        nobody where that is vain.
        """
        lacking = {device: self._lacks(tenant, device) for device in tenant.devices}
        chosen = []
        host_left = self._host_left
        for other in sorted(self._on(tenant.devices), key=_least_recent):
            there = [device for device in other.devices if lacking.get(device, 0) > 0]
            if there and _copied(other) <= host_left and self._may_go(other):
                host_left -= _copied(other)
                chosen.append(other)
                for device in there:
                    lacking[device] -= other.memory_bytes
        return (
            () if any(left > 0 for left in lacking.values()) else tuple(_apart(chosen))
        )

    def _on(self, devices: Iterable[str]) -> list[SuspendCandidate]:
        wanted = set(devices)
        return [
            t
            for t in self._tenants.values()
            if t.is_on_device and not wanted.isdisjoint(t.devices)
        ]

    def _will_end(self, tenant: SuspendCandidate) -> bool:
        """Whether what keeps `tenant` there now ends by itself."""
        rests = (
            not tenant.pinned
            and self.now - tenant.active_at < self._first.policy.warm_seconds
        )
        return tenant.is_busy or rests or not self._moving.isdisjoint(tenant.devices)

    def _may_go(self, tenant: SuspendCandidate) -> bool:
        return (
            self.may_park
            and self._moving.isdisjoint(tenant.devices)
            and self._is_spare(tenant)
        )

    def _is_spare(self, tenant: SuspendCandidate) -> bool:
        """Whether it is idle, has rested for long enough unless its user wants it gone,
        and could come back.
        """
        if tenant.phase is not StatePhase.RESIDENT or tenant.is_busy or tenant.pinned:
            return False
        policy = self._first.policy
        has_rested = (
            tenant.must_go or self.now - tenant.active_at >= policy.warm_seconds
        )
        if not has_rested or self.now < retry_at(tenant, policy):
            return False
        if self._stuck is None:
            self._stuck = not_suspendable(self.house)[1]
        return tenant.lease_id not in self._stuck

    def _fits_host(self, tenant: SuspendCandidate) -> bool:
        return _copied(tenant) <= self._host_left

    def _park(self, tenant: SuspendCandidate) -> None:
        self._host_left -= _copied(tenant)
        self._begin(TransferDirection.SUSPEND, tenant, StatePhase.PARKING)

    def _begin(
        self, act: TransferDirection, tenant: SuspendCandidate, phase: StatePhase
    ) -> None:
        self.operations.append(TransferStep(act=act, lease_id=tenant.lease_id))
        self.add(replace(tenant, phase=phase))
        self._moving.update(tenant.devices)


def _apart(tenants: Iterable[SuspendCandidate]) -> Iterator[SuspendCandidate]:
    """Those of `tenants` that share no device with an earlier one: the others' turn
    comes next time.
    """
    taken: set[str] = set()
    for tenant in tenants:
        if taken.isdisjoint(tenant.devices):
            taken.update(tenant.devices)
            yield tenant


def _copied(tenant: SuspendCandidate) -> int:
    """Host memory that its state takes."""
    return tenant.copied_bytes * len(tenant.devices)


def _line(tenant: SuspendCandidate) -> tuple[float, str]:
    return (math.inf if tenant.wanted_at is None else tenant.wanted_at, tenant.lease_id)


def _least_recent(tenant: SuspendCandidate) -> tuple[float, str]:
    return tenant.active_at, tenant.lease_id
