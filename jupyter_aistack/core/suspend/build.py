"""The host as the rules of suspension see it, built from a snapshot: its GPUs, and the
leases on them as candidates.

A lease that may not be suspended is a candidate that stays. Where suspension is off and
nothing is suspended, there is no such view.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device import Device, DeviceKind, Slice, SliceKind
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    StatePhase,
    unchecked,
)
from jupyter_aistack.core.model.lease import Lease, LeaseState, NoticeKind
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.request import HolderKind, Request
from jupyter_aistack.core.placement.device_capacity import DeviceCapacity

from .feasibility import (
    no_host_memory,
    not_suspendable,
    why_not_resumable,
    why_not_suspendable,
)
from .model import DeviceMemory, HostMemory, SuspendCandidate, candidate_of
from .transfers import TransferPlan

NOT_SUBJECT = "it is not subject to suspension"
GIVEN_BACK = "it is being given back"
NO_DEVICE = "its device does not answer"
NO_WAY_BACK = "it could not be resumed beside others that stay"
_MOVABLE = frozenset({SliceKind.GPU, SliceKind.SHARE})
_OFF_GPU_MEMORY = frozenset({SliceKind.CPU, SliceKind.MIG})
"""Slices that do not count on the memory of a GPU; instances of MIG have their own."""


def build_suspend_input(
    snapshot: Snapshot, leases: Sequence[Lease]
) -> HostMemory | None:
    """The host with these live leases; None where nothing has to do with suspension
    now.
    """
    has_state = any(lease.residence is not None for lease in leases)
    may_have = snapshot.suspend is not None and bool(snapshot.requests)
    if not has_state and not may_have:
        return None

    devices = [
        device
        for device in snapshot.inventory.of_kind(DeviceKind.GPU)
        if device.is_healthy
    ]
    known = {device.id for device in devices}
    candidates = [
        candidate
        for lease in leases
        if (candidate := _candidate(lease, known)) is not None
    ]
    held = _held_bytes(candidates)
    return HostMemory(
        devices={
            device.id: _device_memory(device, held.get(device.id, 0))
            for device in devices
        },
        candidates=tuple(_within_host(candidates, snapshot.host_bytes)),
        host_bytes=snapshot.host_bytes,
        policy=snapshot.suspend or SuspendPolicy(),
    )


def _held_bytes(candidates: Iterable[SuspendCandidate]) -> Mapping[str, int]:
    """By device, what the leases on it may hold there now."""
    held: dict[str, int] = {}
    for candidate in candidates:
        if candidate.is_on_device:
            for device_id in candidate.devices:
                held[device_id] = held.get(device_id, 0) + candidate.memory_bytes
    return held


def start_transfers(
    host: HostMemory | None, snapshot: Snapshot, now: float
) -> TransferPlan | None:
    """What may be moved on a host; None where there is nothing to move. What is
    suspended may be resumed though nothing may be suspended now.
    """
    if host is None:
        return None
    return TransferPlan(host, now, may_suspend=snapshot.suspend is not None)


def residence_for(
    request: Request, slices: Iterable[Slice], snapshot: Snapshot, now: float
) -> DeviceState | None:
    """The device state of a new lease, if its holder may be suspended: a kernel on
    GPUs, in a queue that says so; None for others.

    It is pinned until its server has checked whether it can be suspended: a kernel that
    cannot be moved must not be asked to leave.
    """
    queue = snapshot.policy.queue(request.queue)
    is_allowed = snapshot.suspend is not None and queue is not None and queue.suspend
    if not is_allowed or request.holder.kind is not HolderKind.KERNEL:
        return None

    gpus = [slice_ for slice_ in slices if slice_.kind is not SliceKind.CPU]
    if not gpus or any(slice_.kind not in _MOVABLE for slice_ in gpus):
        return None
    return unchecked(now)


def candidate_for(
    request: Request,
    slices: Iterable[Slice],
    residence: DeviceState | None,
    host: HostMemory,
) -> SuspendCandidate | None:
    """A lease to come as a candidate, assumed to be suspendable where it has a
    residence; None without GPUs.
    """
    on_gpus = _on_gpus(slices)
    if not on_gpus:
        return None
    new = SuspendCandidate(
        lease_id=request.id,
        devices=tuple(slice_.device_id for slice_ in on_gpus),
        memory_bytes=max(slice_.memory_bytes for slice_ in on_gpus),
        active_at=0.0 if residence is None else residence.active_at,
        pinned=NOT_SUBJECT if residence is None else "",
        is_subject=residence is not None,
    )
    why = why_not_suspendable(host, new)
    return replace(new, pinned=why, is_subject=not why) if why else new


def pin_reasons(host: HostMemory) -> dict[str, str]:
    """Why resident leases stay, by lease: because of what pins them, or for want of
    memory, say.

    The latter depends on all others, and may be over with the next plan, so it is not
    written down.
    """
    _, blocked = not_suspendable(host)
    reasons = {}
    for candidate in host.candidates:
        if candidate.phase is not StatePhase.RESIDENT:
            continue
        reasons[candidate.lease_id] = candidate.pinned
        if candidate.lease_id in blocked:
            why = why_not_resumable(host, candidate)
            reasons[candidate.lease_id] = why or NO_WAY_BACK
    return reasons


def _candidate(lease: Lease, known: Collection[str]) -> SuspendCandidate | None:
    """A lease as a candidate; None without GPUs. `known` are the devices that
    answer.
    """
    on_gpus = _on_gpus(lease.slices)
    if not on_gpus:
        return None
    devices = tuple(slice_.device_id for slice_ in on_gpus)
    memory_bytes = max(slice_.memory_bytes for slice_ in on_gpus)
    if lease.residence is None:
        return SuspendCandidate(
            lease_id=lease.id,
            devices=devices,
            memory_bytes=memory_bytes,
            pinned=NOT_SUBJECT,
            is_subject=False,
        )

    candidate = _with_lease_facts(
        candidate_of(lease.id, devices, memory_bytes, lease.residence),
        lease,
        lease.residence,
    )
    if lease.state is LeaseState.RELEASING:
        return _left_alone(replace(candidate, is_subject=False), GIVEN_BACK)
    if not set(devices) <= set(known):
        return _left_alone(candidate, NO_DEVICE)
    return candidate


def _with_lease_facts(
    candidate: SuspendCandidate, lease: Lease, state: DeviceState
) -> SuspendCandidate:
    """A candidate with what its lease says: when its devices worked last, and whether
    it is being preempted.

    A new process that waits for capacity is assumed to be suspendable, as new leases
    are.
    """
    notice = lease.notice
    is_preempted = notice is not None and notice.kind is NoticeKind.PREEMPT
    is_resident = candidate.phase is StatePhase.RESIDENT
    is_unchecked = not state.is_checked and not state.is_kept
    is_new = is_unchecked and not is_resident
    return replace(
        candidate,
        active_at=max(candidate.active_at, lease.active_at or 0.0),
        must_go=candidate.must_go or is_preempted,
        pinned="" if is_new else candidate.pinned,
    )


def _left_alone(candidate: SuspendCandidate, why: str) -> SuspendCandidate:
    return replace(candidate, pinned=why, wanted_at=None, must_go=False)


def _on_gpus(slices: Iterable[Slice]) -> list[Slice]:
    return [slice_ for slice_ in slices if slice_.kind not in _OFF_GPU_MEMORY]


def _device_memory(device: Device, held_bytes: int) -> DeviceMemory:
    """The memory of a device. Its budget is what may be granted of it; where the driver
    does not say what is free, what the leases on it leave of the budget is.

    Args:
        held_bytes: what the leases on it may hold.
    """
    budget = DeviceCapacity(device).memory
    if device.free_bytes is None:
        return DeviceMemory(budget_bytes=budget, free_bytes=max(0, budget - held_bytes))

    ours = device.own_memory_bytes or 0
    # What would be free without its leases is not known where there is a lease and no
    # process of it is seen.
    most = None
    if ours or not held_bytes:
        most = min(device.memory_bytes, device.free_bytes + ours)
    return DeviceMemory(
        budget_bytes=budget, free_bytes=device.free_bytes, most_free_bytes=most
    )


def _within_host(
    candidates: Sequence[SuspendCandidate], host_bytes: int
) -> Iterator[SuspendCandidate]:
    """The same candidates, those pinned whose state the host could not hold beside that
    of all others.

    Those that are suspended already come first, then the others as they came, whatever
    pins them for the time being: so a lease that is promised a place keeps it.
    """
    together = 0
    for candidate in sorted(candidates, key=_is_there):
        size = candidate.memory_bytes * len(candidate.devices)
        if not candidate.is_subject:
            size = 0
        is_too_much = together + size > host_bytes
        if size and is_too_much and _is_there(candidate):
            why = candidate.pinned or no_host_memory(together + size, host_bytes)
            yield replace(candidate, pinned=why, is_subject=False)
        else:
            together += size
            yield candidate


def _is_there(candidate: SuspendCandidate) -> bool:
    return candidate.phase in (StatePhase.RESIDENT, StatePhase.LOST)
