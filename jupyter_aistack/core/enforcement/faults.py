"""What the holder of a lease reads when its GPU failed for all who share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    new_condition,
)
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder


def fault_condition(
    fault: Fault,
    lease: Lease,
    culprit: Holder | None,
    program: str,
    *,
    show_names: bool,
    now: float,
) -> Condition:
    """What the holder of `lease` should know: who caused it, as far as that is known
    and may be disclosed, and what to do.

    Args:
        culprit: the holder whose process caused it; None for a process outside any
            lease, or when it is not known.
        program: what that process runs; empty when it is gone.
        show_names: whether users see the names of others.
        now: seconds since the epoch.
    """
    if fault.pid is None:
        # Perhaps no process did: a daemon was killed, a folder removed.
        cause = fault.message or "it is unknown which process caused it"
        message = f"{cause}; restart the kernel"
    else:
        who = _who(fault, lease, culprit, program, show_names=show_names)
        why = f" ({fault.message})" if fault.message else ""
        message = (
            f"{who} caused it{why}; restart the kernel, nothing more runs there until "
            "all have ended"
        )
    return new_condition(ConditionKind.DEVICE_FAULT, message, now)


def sick_device_condition(device: Device, now: float) -> Condition:
    """What the holders of a part of a device are told when the device itself is sick."""
    sentence = f"{device.name} {device.health.problem}"
    message = f"{sentence}; save what you can, and go on on another GPU"
    return new_condition(ConditionKind.DEVICE_UNHEALTHY, message, now)


def recorded_faults(device: Device, host: str) -> tuple[DeviceFault, ...]:
    """Why a device of a host is out of placement, as it is written down."""
    return tuple(
        DeviceFault(
            host=host,
            device_id=device.id,
            code=condition.code,
            message=condition.message,
            since=condition.since,
            evidence=condition.evidence,
        )
        for condition in device.health.errors
    )


def _who(
    fault: Fault,
    lease: Lease,
    culprit: Holder | None,
    program: str,
    *,
    show_names: bool,
) -> str:
    process = f"{program or 'process'} {fault.pid}"
    if culprit is None:
        return f"{process}, which has no lease,"
    if culprit.user == lease.holder.user:
        return f"{process} of {culprit.label or culprit.id}"
    if show_names:
        return f"{process} of {culprit.user}: {culprit.label or culprit.id}"
    return f"{process} of another user"


def affected(fault: Fault, leases: Iterable[Lease]) -> list[Lease]:
    """The leases on the device without this condition yet; it stays until the
    kernel is checked anew.

    Where an MPS server breaks, a lease that is known to be held another way has none,
    and goes on.
    """
    return [lease for lease in leases if _is_affected(fault, lease)]


def _is_affected(fault: Fault, lease: Lease) -> bool:
    devices = {slice_.device_id for slice_ in lease.slices}
    if fault.device_id not in devices:
        return False
    may_be_shared = lease.enforced_by is None or lease.enforced_by.is_by_mps
    return may_be_shared and lease.condition(ConditionKind.DEVICE_FAULT) is None


def is_untold(device: Device, leases: Iterable[Lease]) -> bool:
    """Whether somebody holds a part of a sick device and has not been told so."""
    return any(
        lease.condition(ConditionKind.DEVICE_UNHEALTHY) is None
        for lease in leases
        if any(slice_.device_id == device.id for slice_ in lease.slices)
    )


def culprit_of(
    fault: Fault, leases: Iterable[Lease], pids: Mapping[str, frozenset[int]]
) -> Holder | None:
    """Whose process caused it, by each lease's processes; None when it has none
    here.
    """
    return next(
        (
            lease.holder
            for lease in leases
            if fault.pid in pids.get(lease.id, frozenset())
        ),
        None,
    )
