"""The host as the rules of suspension see it: its GPUs, and the leases on them as
tenants.

A lease that may not be suspended is a tenant that stays. Where nobody may be, and
nobody is, there is no house.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device import Device, DeviceKind, Slice, SliceKind
from jupyter_aistack.core.model.device_state import NOT_CHECKED, DeviceState, StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState, NoticeKind
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.request import HolderKind, Request
from jupyter_aistack.core.placement.device_capacity import DeviceCapacity

from .feasibility import (
    could_not_return,
    no_host_memory,
    not_suspendable,
    why_not_suspendable,
)
from .model import DeviceMemory, HostMemory, SuspendCandidate, candidate_of
from .transfers import TransferPlan

NOT_SUBJECT = "it is not subject to suspension"
GIVEN_BACK = "it is being given back"
NO_DEVICE = "its device does not answer"
NO_WAY_BACK = "it could not come back beside others that stay"
_MOVABLE = frozenset({SliceKind.GPU, SliceKind.SHARE})


def build_suspend_input(
    snapshot: Snapshot, leases: Sequence[Lease]
) -> HostMemory | None:
    """The host with these live leases; None where nobody has to do with suspension
    now.
    """
    is_anybody = any(lease.residence is not None for lease in leases)
    if not is_anybody and (snapshot.suspend is None or not snapshot.requests):
        return None
    devices = [
        device
        for device in snapshot.inventory.of_kind(DeviceKind.GPU)
        if device.is_healthy
    ]
    known = {device.id for device in devices}
    tenants = [one for lease in leases if (one := _tenant(lease, known)) is not None]
    held = {device.id: 0 for device in devices}
    for one in tenants:
        for device_id in one.devices if one.is_on_device else ():
            held[device_id] = held.get(device_id, 0) + one.memory_bytes
    return HostMemory(
        cards={device.id: _card(device, held[device.id]) for device in devices},
        tenants=tuple(_within_host(tenants, snapshot.host_bytes)),
        host_bytes=snapshot.host_bytes,
        policy=snapshot.suspend or SuspendPolicy(),
    )


def start_transfers(
    house: HostMemory | None, snapshot: Snapshot, now: float
) -> TransferPlan | None:
    """What may begin in a house; None where there is none. Who is suspended comes back
    though nobody may be now.
    """
    return (
        None
        if house is None
        else TransferPlan(house, now, may_park=snapshot.suspend is not None)
    )


def residence_for(
    request: Request, slices: Iterable[Slice], snapshot: Snapshot, now: float
) -> DeviceState | None:
    """Where the state of a new lease is, if its holder may be suspended: a kernel on
    GPUs, in a queue that says so.

    It stays until its server has looked whether it can be: a kernel that nobody can
    move must not be told to go.
    """
    queue = snapshot.policy.queue(request.queue)
    is_asked_for = snapshot.suspend is not None and queue is not None and queue.suspend
    gpus = [piece for piece in slices if piece.kind is not SliceKind.CPU]
    is_able = (
        request.holder.kind is HolderKind.KERNEL
        and bool(gpus)
        and all(p.kind in _MOVABLE for p in gpus)
    )
    return (
        DeviceState(active_at=now, pinned=NOT_CHECKED)
        if is_asked_for and is_able
        else None
    )


def candidate_for(
    request: Request,
    slices: Iterable[Slice],
    residence: DeviceState | None,
    house: HostMemory,
) -> SuspendCandidate | None:
    """A lease to come as a tenant, taken for one that can be suspended where it has a
    residence; None without GPUs.
    """
    pieces = _on_gpus(slices)
    if not pieces:
        return None
    new = SuspendCandidate(
        lease_id=request.id,
        devices=tuple(piece.device_id for piece in pieces),
        memory_bytes=max(piece.memory_bytes for piece in pieces),
        active_at=0.0 if residence is None else residence.active_at,
        pinned=NOT_SUBJECT if residence is None else "",
        is_subject=residence is not None,
    )
    why = why_not_suspendable(house, new)
    return replace(new, pinned=why, is_subject=not why) if why else new


def pin_reasons(house: HostMemory) -> dict[str, str]:
    """Why leases that are there stay though nothing of their own pins them: for want of
    room on the host, say.

    That depends on all others, and may be over with the next plan, so it is not written
    down.
    """
    stuck = not_suspendable(house)[1]
    there = [one for one in house.tenants if one.phase is StatePhase.RESIDENT]
    found = {one.lease_id: one.pinned for one in there}
    return found | {
        one.lease_id: could_not_return(house, one) or NO_WAY_BACK
        for one in there
        if one.lease_id in stuck
    }


def _tenant(lease: Lease, known: Iterable[str]) -> SuspendCandidate | None:
    pieces = _on_gpus(lease.slices)
    if not pieces:
        return None
    devices = tuple(piece.device_id for piece in pieces)
    memory_bytes = max(piece.memory_bytes for piece in pieces)
    if lease.residence is None:
        return SuspendCandidate(
            lease_id=lease.id,
            devices=devices,
            memory_bytes=memory_bytes,
            pinned=NOT_SUBJECT,
            is_subject=False,
        )
    one = _as_lease_says(
        candidate_of(lease.id, devices, memory_bytes, lease.residence), lease
    )
    if lease.state is LeaseState.RELEASING:
        return _left_alone(replace(one, is_subject=False), GIVEN_BACK)
    return one if set(devices) <= set(known) else _left_alone(one, NO_DEVICE)


def _as_lease_says(one: SuspendCandidate, lease: Lease) -> SuspendCandidate:
    """A tenant with what is noted on its lease: when its devices worked last, and that
    it was asked back.

    A new process that waits for room is taken for one that can be suspended, as
    newcomers are.
    """
    is_asked_back = lease.notice is not None and lease.notice.kind is NoticeKind.PREEMPT
    is_new = one.pinned == NOT_CHECKED and one.phase is not StatePhase.RESIDENT
    return replace(
        one,
        active_at=max(one.active_at, lease.active_at or 0.0),
        must_go=one.must_go or is_asked_back,
        pinned="" if is_new else one.pinned,
    )


def _left_alone(one: SuspendCandidate, why: str) -> SuspendCandidate:
    return replace(one, pinned=why, wanted_at=None, must_go=False)


def _on_gpus(slices: Iterable[Slice]) -> list[Slice]:
    """The slices that count on the memory of a GPU; instances of MIG have their own."""
    return [
        piece for piece in slices if piece.kind not in (SliceKind.CPU, SliceKind.MIG)
    ]


def _card(device: Device, held_bytes: int) -> DeviceMemory:
    """Its budget is what may be granted of it. Where the driver does not say what is
    free, the budgets do.

    What would be free without its tenants is not known where somebody is there and no
    process is seen to be.
    """
    budget = DeviceCapacity(device).memory
    if device.free_bytes is None:
        return DeviceMemory(budget_bytes=budget, free_bytes=max(0, budget - held_bytes))
    ours = max(
        0,
        sum(process.memory_bytes for process in device.processes)
        - device.foreign_memory_bytes,
    )
    most = (
        None
        if held_bytes and not ours
        else min(device.memory_bytes, device.free_bytes + ours)
    )
    return DeviceMemory(
        budget_bytes=budget, free_bytes=device.free_bytes, most_free_bytes=most
    )


def _within_host(
    tenants: Sequence[SuspendCandidate], host_bytes: int
) -> Iterator[SuspendCandidate]:
    """The same tenants, those pinned whose state the host could not hold beside that of
    all others.

    Those that are suspended already come first, then the others as they came, whatever
    pins them for the time being: so who is promised a place keeps it.
    """
    together = 0
    for one in sorted(tenants, key=_is_there):
        size = one.memory_bytes * len(one.devices) if one.is_subject else 0
        if size and _is_there(one) and together + size > host_bytes:
            why = one.pinned or no_host_memory(together + size, host_bytes)
            yield replace(one, pinned=why, is_subject=False)
        else:
            together += size
            yield one


def _is_there(one: SuspendCandidate) -> bool:
    return one.phase in (StatePhase.RESIDENT, StatePhase.LOST)
