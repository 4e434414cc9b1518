"""What can be suspended, and what must be able to be resumed: kernels side by side
under a budget.

A suspended kernel is resumed on its own devices only, and nowhere else: the driver does
not promise more. A restore that meets too little memory is fatal to what it restores,
so nothing is resumed before its bytes are reserved.
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
    """One transfer to begin now."""

    direction: TransferDirection
    lease_id: str


def why_not_suspendable(host: HostMemory, candidate: SuspendCandidate) -> str:
    """Why a candidate could not be suspended; empty when it could.

    What may be suspended must be able to be resumed, however the others stand: so all
    of them together fit into the host's share, and each fits on its devices beside
    those that stay there. Then nothing waits for ever.
    """
    if candidate.pinned:
        return candidate.pinned
    others = [
        other
        for other in host.candidates
        if other.lease_id != candidate.lease_id and other.is_subject
    ]
    together = sum(
        each.memory_bytes * len(each.devices) for each in [candidate, *others]
    )
    if together > host.host_bytes:
        return no_host_memory(together, host.host_bytes)
    return why_not_resumable(host, candidate)


def no_host_memory(together: int, host_bytes: int) -> str:
    """The sentence for a lease that would bring suspended state above what the host has
    for it.

    In whole GB: what the host has varies from second to second, and a sentence that is
    shown must not.
    """
    return f"not enough host memory to suspend it: {format_bytes(together)} of {host_bytes // 10**9} GB"


def why_not_resumable(host: HostMemory, candidate: SuspendCandidate) -> str:
    """Why a candidate, once suspended, could not be resumed beside those that stay on
    its devices; empty when it could.
    """
    others = tuple(
        other for other in host.candidates if other.lease_id != candidate.lease_id
    )
    taken, _ = not_suspendable(replace(host, candidates=others))
    for device_id in candidate.devices:
        device = host.devices[device_id]
        need = promised_bytes(candidate, device, host.policy)
        if taken[device_id] + need > device.budget_bytes:
            return f"it could not be resumed: that takes {format_bytes(need)} of its device"
    return ""


def why_not_admitted(host: HostMemory, candidate: SuspendCandidate) -> str:
    """Why a new lease may not make these devices its home; empty when it may.

    One that stays must leave each suspended lease the memory to be resumed. A resident
    lease that could not be resumed beside it any more is not suspended from then on,
    and so stays as well.
    """
    taken, blocked = not_suspendable(
        replace(host, candidates=(*host.candidates, candidate))
    )
    if not candidate.pinned and candidate.lease_id not in blocked:
        return ""
    for device_id in candidate.devices:
        needed = taken[device_id] + _largest_return(host, device_id)
        if needed > host.devices[device_id].budget_bytes:
            return f"{device_id} is promised to others: {format_bytes(needed)} would be needed at once"
    return ""


def _largest_return(host: HostMemory, device_id: str) -> int:
    """The most that a lease which is away from a device will need there."""
    device = host.devices[device_id]
    # As large as its budget: that is what each may have grown to when it is suspended
    # the next time.
    grown = (
        replace(other, state_bytes=None)
        for other in host.candidates
        if device_id in other.devices and _will_return(other)
    )
    return max(
        (promised_bytes(other, device, host.policy) for other in grown), default=0
    )


def not_suspendable(host: HostMemory) -> tuple[Mapping[str, int], frozenset[str]]:
    """The bytes of each device that will not be given back for others, and the leases
    that stay only for want of them.

    Pinned leases stay, and each lease that could not be resumed beside those that do.
    """
    taken = _pinned_bytes(host)
    if not any(taken.values()):
        return taken, frozenset()

    # Each lease that turns out to stay takes memory from the others: look again until
    # no more do.
    free = [candidate for candidate in host.candidates if _is_free(candidate)]
    blocked: set[str] = set()
    while True:
        more = [
            candidate
            for candidate in free
            if candidate.lease_id not in blocked and _is_blocked(candidate, taken, host)
        ]
        if not more:
            return taken, frozenset(blocked)
        for candidate in more:
            blocked.add(candidate.lease_id)
            _add(candidate, taken)


def _pinned_bytes(host: HostMemory) -> dict[str, int]:
    """The bytes of each device that pinned leases hold."""
    taken = dict.fromkeys(host.devices, 0)
    for candidate in host.candidates:
        if candidate.pinned and candidate.phase is not StatePhase.LOST:
            _add(candidate, taken)
    return taken


def _is_free(candidate: SuspendCandidate) -> bool:
    return candidate.phase is StatePhase.RESIDENT and not candidate.pinned


def _add(candidate: SuspendCandidate, taken: dict[str, int]) -> None:
    for device_id in candidate.devices:
        taken[device_id] = taken.get(device_id, 0) + candidate.memory_bytes


def _is_blocked(
    candidate: SuspendCandidate, taken: Mapping[str, int], host: HostMemory
) -> bool:
    """Whether a resident lease could not be resumed beside what is `taken`."""
    for device_id in candidate.devices:
        device = host.devices[device_id]
        needed = promised_bytes(candidate, device, host.policy)
        if taken[device_id] + needed > device.budget_bytes:
            return True
    return False


def lacks_memory(host: HostMemory, candidate: SuspendCandidate) -> str:
    """Why a new lease must wait though its share is free: what was suspended has not
    left its memory yet; empty when it need not.
    """
    for device_id in candidate.devices:
        device = host.devices[device_id]
        # One percent and a context's worth may be missing: the driver keeps some for
        # itself.
        context_bytes = host.policy.context_bytes or 0
        tolerance = device.budget_bytes // 100 + context_bytes
        is_free = device.free_bytes + tolerance >= candidate.memory_bytes
        if not is_free and _has_suspended(host, device_id):
            return f"waits for memory of its device: {format_bytes(device.free_bytes)} are free"
    return ""


def _has_suspended(host: HostMemory, device_id: str) -> bool:
    return any(
        device_id in other.devices and not other.is_on_device
        for other in host.candidates
    )


def _will_return(candidate: SuspendCandidate) -> bool:
    """Whether a candidate is not on its device now and is not counted among those that
    stay; a lost lease will be started again.
    """
    if candidate.phase is StatePhase.LOST:
        return True
    return candidate.phase is not StatePhase.RESIDENT and not candidate.pinned
