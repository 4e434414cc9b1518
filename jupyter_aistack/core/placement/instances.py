"""Where a MIG profile fits: on an instance that exists and is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import (
    Device,
    Inventory,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.spec import Spec

from .device_capacity import DeviceCapacity
from .refusals import no_device, profiles_of, waits_for_drained
from .verdict import UNKNOWN_PROFILE, UNSATISFIABLE, PlacementFailure, PlacementVerdict

LEAST_FRACTION = Fraction(1, 1000)


def place_instance(
    spec: Spec,
    devices: Sequence[Device],
    free: Mapping[str, DeviceCapacity],
    kept: Mapping[str, Fraction],
    inventory: Inventory,
) -> PlacementVerdict:
    """A free instance of the profile that `spec` names, or why there is none.

    Args:
        devices: those of one host that it may be on.
        free: what is free on each, by device id.
        kept: shares of devices that are kept for others.
        inventory: what the sentences speak of.
    """
    if spec.count > 1:
        why = f"{spec} cannot be had: a process uses one MIG instance; ask for {spec.profile} once for each worker"
        return PlacementFailure(reason=why, never=UNSATISFIABLE)
    if not devices:
        return PlacementFailure(reason=no_device(spec, inventory), never=UNSATISFIABLE)

    matching = [
        (device, instance)
        for device in devices
        for instance in device.mig
        if instance.profile == spec.profile
    ]
    if not matching:
        return _no_instance(spec, devices)

    available = _without_kept(
        [pair for pair in matching if _is_available(*pair, free)], kept
    )
    if not available:
        for device, instance in matching:
            is_held = instance.uuid in free[device.id].uuids()
            if device.drain is not None and not is_held:
                return PlacementFailure(reason=waits_for_drained(device))
        why = (
            f"waits for {spec}: all {len(matching)} instances of that profile are taken"
        )
        return PlacementFailure(reason=why)

    device, instance = min(available, key=lambda pair: (pair[0].index, pair[1].uuid))
    return (slice_of_instance(device, instance),)


def _no_instance(spec: Spec, devices: Sequence[Device]) -> PlacementFailure:
    """There is no instance of that profile, free or not."""
    if any(spec.profile in device.mig_offers for device in devices):
        why = f"waits for an instance {spec.profile} to be created; none is there yet"
        return PlacementFailure(reason=why)

    offered = profiles_of(devices)
    have = "no GPU of this host has MIG instances"
    if offered:
        have = f"this host offers {', '.join(offered)}"
    return PlacementFailure(
        reason=f"{spec} cannot be had here: {have}", never=UNKNOWN_PROFILE
    )


def _is_available(
    device: Device, instance: MIGInstance, free: Mapping[str, DeviceCapacity]
) -> bool:
    return device.is_schedulable and instance.uuid not in free[device.id].uuids()


def _without_kept(
    available: Sequence[tuple[Device, MIGInstance]], kept: Mapping[str, Fraction]
) -> list[tuple[Device, MIGInstance]]:
    """The instances of those devices that have more than are kept for others."""
    counts = Counter(device.id for device, _ in available)
    return [
        (device, instance)
        for device, instance in available
        if counts[device.id] > _kept_instances(device, instance, kept)
    ]


def _kept_instances(
    device: Device, instance: MIGInstance, kept: Mapping[str, Fraction]
) -> int:
    """How many instances of that size are kept for others on a device."""
    share = kept.get(device.id, 0)
    if not share:
        return 0
    fraction = max(slice_of_instance(device, instance).fraction, LEAST_FRACTION)
    return max(1, int(share / fraction))


def slice_of_instance(device: Device, instance: MIGInstance) -> Slice:
    """The slice that a MIG instance makes: its memory or its SMs, whichever is the
    larger share of the device.
    """
    memory = Fraction(1)
    if device.memory_bytes:
        memory = Fraction(instance.memory_bytes, device.memory_bytes)

    compute = Fraction(0)
    if device.multiprocessors:
        compute = Fraction(instance.multiprocessors, device.multiprocessors)

    return Slice(
        device_id=device.id,
        kind=SliceKind.MIG,
        fraction=min(max(memory, compute), Fraction(1)),
        memory_bytes=instance.memory_bytes,
        uuid=instance.uuid,
        profile=instance.profile,
        gpu_slices=instance.gpu_slices,
        compute_slices=instance.compute_slices,
    )
