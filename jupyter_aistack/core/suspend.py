"""Which idle leases give their device's memory back, and which come back when: notebooks side by side under a budget.

A suspended notebook returns to its own devices only, and nowhere else: the driver does not promise more. A restore that
meets too little memory is fatal to what it restores, so nothing comes back before its bytes are reserved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .tenants import House, Phase, Tenant, restore_bytes, retry_at
from .units import format_bytes


class Act(StrEnum):
    """What may be done to the state of a lease."""

    SUSPEND = "suspend"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One move to begin now."""

    act: Act
    lease_id: str


def why_pinned(house: House, tenant: Tenant) -> str:
    """Why a tenant that is about to move in could not be suspended; empty when it could.

    Whoever may be suspended must be able to come back, however the others stand: so all of them together fit into the
    host's share, and each fits on its devices beside those that stay there. Then nobody waits for ever.
    """
    if tenant.pinned:
        return tenant.pinned
    others = [other for other in house.tenants if other.lease_id != tenant.lease_id and other.phase is not Phase.LOST]
    together = sum(t.memory_bytes * len(t.devices) for t in [tenant, *others] if not t.pinned)
    if together > house.host_bytes:
        return f"the host has no room to park it: {format_bytes(together)} of {format_bytes(house.host_bytes)}"
    stays = {device: _pinned_bytes(others, device) for device in tenant.devices}
    need = restore_bytes(tenant, house.policy)
    if any(stays[device] + need > house.cards[device].budget_bytes for device in tenant.devices):
        return f"it could not come back: that takes {format_bytes(need)} of its device"
    return ""


def admits(house: House, tenant: Tenant) -> str:
    """Why a new tenant may not make these devices its home; empty when it may.

    A pinned one must leave each tenant that can be suspended the room to come back.
    """
    for device in tenant.devices:
        stays = _pinned_bytes([*house.tenants, tenant], device)
        others = [other for other in house.tenants if device in other.devices and not other.pinned]
        movable = [other for other in [*others, tenant] if not other.pinned and other.phase is not Phase.LOST]
        most = max((restore_bytes(replace(other, state_bytes=None), house.policy) for other in movable), default=0)
        if stays + most > house.cards[device].budget_bytes:
            return f"{device} is promised to others: {format_bytes(stays + most)} would be needed at once"
    return ""


def decide(house: House, now: float) -> tuple[Operation, ...]:
    """The moves to begin at `now` (seconds since the epoch); pure. At most one runs on each device at a time.

    Whoever waits is served in order. One that cannot be yet has a claim on its devices, so that later ones do not pass
    it there, but only as long as something runs, rests or moves on them: that will end, and then it is looked at
    again. A claim where all stands still could hold up the very ones that must go on before it can be served.
    """
    plan = _Plan(house, now)
    for tenant in sorted(house.tenants, key=_line):
        if tenant.phase is Phase.PARKED and tenant.wanted_at is not None:
            plan.serve(tenant)
    for tenant in sorted(house.tenants, key=_least_recent):
        if tenant.phase is Phase.RESIDENT and now - tenant.active_at >= house.policy.hard_seconds:
            plan.park_idle(tenant)
    return tuple(plan.operations)


class _Plan:
    """What has been decided so far, and what that leaves."""

    def __init__(self, house: House, now: float) -> None:
        self.house, self.now = house, now
        self.operations: list[Operation] = []
        self.claimed: set[str] = set()
        self.moving = {device for tenant in house.tenants if tenant.is_moving for device in tenant.devices}
        self.host_left = house.host_bytes - house.parked_bytes

    def serve(self, tenant: Tenant) -> None:
        """Bring a waiting tenant back, or park whoever is in its way, or let it wait."""
        if not self.claimed.isdisjoint(tenant.devices):
            return
        if not self.moving.isdisjoint(tenant.devices):
            self.claimed.update(tenant.devices)
        elif not any(self._lacks(tenant, device) for device in tenant.devices):
            self._begin(Act.RESUME, tenant)
        else:
            victims = self._victims(tenant)
            for victim in victims:
                self._park(victim)
            if victims or any(self._will_end(other) for other in self.house.on(tenant.devices)):
                self.claimed.update(tenant.devices)

    def park_idle(self, tenant: Tenant) -> None:
        if self._may_go(tenant) and self._fits_host(tenant) and self.claimed.isdisjoint(tenant.devices):
            self._park(tenant)

    def _lacks(self, tenant: Tenant, device: str) -> int:
        """Bytes that are missing on a device for `tenant` to come back; 0 for none."""
        card, need = self.house.cards[device], restore_bytes(tenant, self.house.policy)
        promised = sum(other.memory_bytes for other in self.house.on([device]))
        budget = card.budget_bytes - promised - max(tenant.memory_bytes, need)
        return max(0, -min(budget, card.free_bytes - need))

    def _victims(self, tenant: Tenant) -> Sequence[Tenant]:
        """Whom to park now for `tenant`, least recently used first: one on each device; nobody where that is vain."""
        lacking = {device: self._lacks(tenant, device) for device in tenant.devices}
        chosen, host_left = [], self.host_left
        for other in sorted(self.house.on(tenant.devices), key=_least_recent):
            there = [device for device in other.devices if lacking.get(device, 0) > 0]
            size = other.copied_bytes * len(other.devices)
            if there and size <= host_left and self._may_go(other):
                host_left -= size
                chosen.append(other)
                for device in there:
                    lacking[device] -= other.memory_bytes
        return () if any(left > 0 for left in lacking.values()) else tuple(_apart(chosen))

    def _will_end(self, tenant: Tenant) -> bool:
        """Whether what keeps `tenant` there now ends by itself."""
        rests = not tenant.pinned and self.now - tenant.active_at < self.house.policy.warm_seconds
        return tenant.is_busy or rests or not self.moving.isdisjoint(tenant.devices)

    def _may_go(self, tenant: Tenant) -> bool:
        policy = self.house.policy
        is_free = tenant.phase is Phase.RESIDENT and not tenant.is_busy and not tenant.pinned
        has_rested = self.now - tenant.active_at >= policy.warm_seconds and self.now >= retry_at(tenant, policy)
        return is_free and has_rested and self.moving.isdisjoint(tenant.devices)

    def _fits_host(self, tenant: Tenant) -> bool:
        return tenant.copied_bytes * len(tenant.devices) <= self.host_left

    def _park(self, tenant: Tenant) -> None:
        self.host_left -= tenant.copied_bytes * len(tenant.devices)
        self._begin(Act.SUSPEND, tenant)

    def _begin(self, act: Act, tenant: Tenant) -> None:
        self.operations.append(Operation(act=act, lease_id=tenant.lease_id))
        self.moving.update(tenant.devices)


def _apart(tenants: Iterable[Tenant]) -> Iterator[Tenant]:
    """Those of `tenants` that share no device with an earlier one: the others' turn comes next time."""
    taken: set[str] = set()
    for tenant in tenants:
        if taken.isdisjoint(tenant.devices):
            taken.update(tenant.devices)
            yield tenant


def _pinned_bytes(tenants: Iterable[Tenant], device: str) -> int:
    stays = (t for t in tenants if t.pinned and device in t.devices and t.phase is not Phase.LOST)
    return sum(tenant.memory_bytes for tenant in stays)


def _line(tenant: Tenant) -> tuple[float, str]:
    return (math.inf if tenant.wanted_at is None else tenant.wanted_at, tenant.lease_id)


def _least_recent(tenant: Tenant) -> tuple[float, str]:
    return tenant.active_at, tenant.lease_id
