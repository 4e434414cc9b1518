"""Which idle leases give their device's memory back, and which come back when:
notebooks side by side under a budget.

A suspended notebook returns to its own devices only, and nowhere else: the driver does
not promise more. A restore that meets too little memory is fatal to what it restores,
so nothing comes back before its bytes are reserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.plan import TransferDirection
from jupyter_aistack.core.model.units import format_bytes

from .model import HostMemory, SuspendCandidate, promised_bytes


@dataclass(frozen=True, kw_only=True)
class TransferStep:
    """One move to begin now."""

    act: TransferDirection
    lease_id: str


def why_not_suspendable(house: HostMemory, tenant: SuspendCandidate) -> str:
    """Why a tenant could not be suspended; empty when it could.

    Whoever may be suspended must be able to come back, however the others stand: so all
    of them together fit into the host's share, and each fits on its devices beside
    those that stay there. Then nobody waits for ever.
    """
    if tenant.pinned:
        return tenant.pinned
    others = [
        other
        for other in house.tenants
        if other.lease_id != tenant.lease_id and other.is_subject
    ]
    together = sum(t.memory_bytes * len(t.devices) for t in [tenant, *others])
    if together > house.host_bytes:
        return no_host_memory(together, house.host_bytes)
    return could_not_return(house, tenant)


def no_host_memory(together: int, host_bytes: int) -> str:
    """The sentence for one who would bring suspended state above what the host has for
    it.

    In whole GB: what the host has varies from second to second, and a sentence that is
        shown must not.
    """
    return f"the host has no room to park it: {format_bytes(together)} of {host_bytes // 10**9} GB"


def could_not_return(house: HostMemory, tenant: SuspendCandidate) -> str:
    """Why a tenant, once suspended, could not come back beside those that stay on its
    devices; empty when it could.
    """
    others = replace(
        house,
        tenants=tuple(
            other for other in house.tenants if other.lease_id != tenant.lease_id
        ),
    )
    taken, _ = not_suspendable(others)
    for device in tenant.devices:
        card = house.cards[device]
        need = promised_bytes(tenant, card, house.policy)
        if taken[device] + need > card.budget_bytes:
            return (
                f"it could not come back: that takes {format_bytes(need)} of its device"
            )
    return ""


def why_not_admitted(house: HostMemory, tenant: SuspendCandidate) -> str:
    """Why a new tenant may not make these devices its home; empty when it may.

    One that stays must leave each tenant that is not there now the room to come back.
    Whoever is there, and could not come back beside it any more, is not suspended from
    then on, and so stays as well.
    """
    taken, stuck = not_suspendable(replace(house, tenants=(*house.tenants, tenant)))
    if not tenant.pinned and tenant.lease_id not in stuck:
        return ""
    for device in tenant.devices:
        card = house.cards[device]
        away = [
            other
            for other in house.tenants
            if device in other.devices and _will_need_room(other)
        ]
        grown = (
            replace(other, state_bytes=None) for other in away
        )  # as each may be when it goes the next time
        most = max(
            (promised_bytes(other, card, house.policy) for other in grown), default=0
        )
        if taken[device] + most > card.budget_bytes:
            return f"{device} is promised to others: {format_bytes(taken[device] + most)} would be needed at once"
    return ""


def not_suspendable(house: HostMemory) -> tuple[Mapping[str, int], frozenset[str]]:
    """The bytes of each device that nobody will give back for others, and the leases
    that only for want of them stay.

    Pinned ones stay, and each that could not come back beside those that do.
    """
    taken = dict.fromkeys(house.cards, 0)
    for tenant in house.tenants:
        if tenant.pinned and tenant.phase is not StatePhase.LOST:
            _add(tenant, taken)
    free = (
        [
            one
            for one in house.tenants
            if one.phase is StatePhase.RESIDENT and not one.pinned
        ]
        if any(taken.values())
        else []
    )
    stuck: set[str] = set()
    while True:
        more = [
            one
            for one in free
            if one.lease_id not in stuck and _is_blocked(one, taken, house)
        ]
        if not more:
            return taken, frozenset(stuck)
        for one in more:
            stuck.add(one.lease_id)
            _add(one, taken)


def _add(tenant: SuspendCandidate, taken: dict[str, int]) -> None:
    for device in tenant.devices:
        taken[device] = taken.get(device, 0) + tenant.memory_bytes


def _is_blocked(
    tenant: SuspendCandidate, taken: Mapping[str, int], house: HostMemory
) -> bool:
    cards = [(house.cards[device], taken[device]) for device in tenant.devices]
    return any(
        bytes_there + promised_bytes(tenant, card, house.policy) > card.budget_bytes
        for card, bytes_there in cards
    )


def lacks_memory(house: HostMemory, tenant: SuspendCandidate) -> str:
    """Why a new tenant must wait though its share is free: whoever was suspended has
    not left its memory yet.

    One percent and a context's worth may be missing: the driver keeps some for itself.
    """
    for device in tenant.devices:
        card = house.cards[device]
        is_free = (
            card.free_bytes + card.budget_bytes // 100 + house.policy.context_bytes
            >= tenant.memory_bytes
        )
        if not is_free and any(
            device in other.devices and not other.is_on_device
            for other in house.tenants
        ):
            return f"waits for memory of its device: {format_bytes(card.free_bytes)} are free"
    return ""


def _will_need_room(tenant: SuspendCandidate) -> bool:
    """Whether it is not there now and is not counted among those that stay; a lost one
    will be started anew.
    """
    return tenant.phase is StatePhase.LOST or (
        tenant.phase is not StatePhase.RESIDENT and not tenant.pinned
    )
