"""Why a spec can never be had here, or not now, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_bytes

from .device_capacity import DeviceCapacity
from .sizing import is_too_little, most_alike, share_of


def no_device(spec: Spec, inventory: Inventory) -> str:
    """There is no device of the kind or the model that a spec insists on."""
    problems = f" ({'; '.join(inventory.problems)})" if inventory.problems else ""
    gpus = inventory.of_kind(DeviceKind.GPU)
    if spec.models and gpus:
        names = ", ".join(sorted({device.name for device in gpus}))
        return f"{spec} cannot be had: no GPU here is of that model; there is {names}{problems}"

    if spec.target is DeviceKind.CPU and gpus:
        return f"{spec} cannot be had: this host offers GPUs alone{problems}"

    is_any_kind = spec.target is not DeviceKind.GPU and not spec.needs_host
    if is_any_kind:
        return f"{spec} cannot be had: this host offers no device{problems}"

    share = str(spec).removeprefix("gpu:").split(",")[0]
    way_out = f"; ask for {share} to take a share of the CPU instead"
    if spec.unit is Unit.PROFILE:
        way_out = ""
    return f"{spec} cannot be had: this host has no GPU{problems}{way_out}"


def too_much(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    """The devices of that kind are too few, too small or not divisible."""
    return f"{spec} cannot be had here: {_what_there_is(spec, kind, devices)}"


def _what_there_is(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    if spec.unit is not Unit.DEVICES and _are_indivisible(devices):
        return "its GPUs are leased whole only; ask for 1"
    uncut = [device for device in devices if device.is_uncut]
    if not uncut:
        offered = ", ".join(profiles_of(devices)) or "(none yet)"
        return f"this host's GPUs are cut into MIG instances; ask for one of {offered}"
    if len(uncut) < len(devices):
        return f"{_of_those(spec, kind, uncut)}; {_cut_beside(devices)}"
    return _of_those(spec, kind, uncut)


def _of_those(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    """What there is of devices that are granted as a whole or by shares."""
    largest = _largest_memory(devices)
    if spec.unit is Unit.MEMORY and spec.amount > largest:
        return f"the largest device has {format_bytes(largest)}"
    least = _least_of_too_little(spec, devices)
    if least:
        return (
            f"a share of a GPU needs at least {format_bytes(least)} here, as its driver "
            "takes some for each process"
        )
    if spec.unit is Unit.CORES:
        return f"this host has {max(len(device.cores) for device in devices)} cores"

    alike = most_alike(devices)
    wanted = int(spec.amount) if spec.unit is Unit.DEVICES else spec.count
    if len(devices) >= wanted > alike:
        return f"its GPUs are of two makers, which one process cannot mix; at most {alike} are alike"
    return f"this host has {_counted(spec, kind, devices)}"


def _least_of_too_little(spec: Spec, devices: Sequence[Device]) -> int:
    """The least memory of a share, where a spec asks for less on each of the devices;
    else 0.
    """
    able = [device for device in devices if device.is_shareable]
    refused = [
        device for device in able if is_too_little(device, share_of(spec, device))
    ]
    if not able or len(refused) < len(able):
        return 0
    return min(device.least_share_bytes for device in refused)


def _cut_beside(devices: Sequence[Device]) -> str:
    """What there is beside uncut devices."""
    cut = sum(not device.is_uncut for device in devices)
    verb = "is" if cut == 1 else "are"
    offered = ", ".join(profiles_of(devices)) or "(none yet)"
    return f"{cut} more {verb} cut into MIG instances ({offered})"


def _largest_memory(devices: Sequence[Device]) -> int:
    """The memory of the largest device that can be shared; of the largest at all where
    none can.
    """
    able = [device for device in devices if device.is_shareable] or devices
    return max(device.memory_bytes for device in able)


def _are_indivisible(devices: Sequence[Device]) -> bool:
    return bool(devices) and all(
        device.is_uncut and not device.is_divisible for device in devices
    )


def _counted(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    noun = "GPU" if kind is DeviceKind.GPU else "CPU device"
    plural = "" if len(devices) == 1 else "s"
    model = f" of {'|'.join(spec.models)}" if spec.models else ""
    return f"{len(devices)} {noun}{plural}{model}"


def profiles_of(devices: Sequence[Device]) -> list[str]:
    """The MIG profiles of which the devices have instances."""
    return sorted({instance.profile for device in devices for instance in device.mig})


def of_two_makers(count: int) -> str:
    """The devices that are free are not alike."""
    return f"waits for {count} GPUs of one maker, which one process cannot mix"


def waits_for_drained(device: Device) -> str:
    """Nothing new is granted on a device that is needed."""
    drain = device.drain
    text = "" if drain is None else drain.text
    return f"waits for a device that {text}: {device.name} {device.index}"


def why_waiting(
    able: Sequence[DeviceCapacity], sizes: Mapping[str, Fraction], count: int
) -> str:
    """Why fewer than `count` of the devices that could hold a spec can do so now.

    Args:
        able: what is free on those devices.
        sizes: the share it takes of each, by device id.
    """
    healthy = [free for free in able if free.device.is_healthy]
    if len(healthy) < count:
        broken = next(free.device for free in able if not free.device.is_healthy)
        return f"waits for a device that does not answer: {broken.name} {broken.index} {broken.problem}"

    open_ = [free for free in healthy if free.device.drain is None]
    if len(open_) < count:
        drained = (free.device for free in healthy if free.device.drain is not None)
        return waits_for_drained(next(drained))
    healthy = open_

    fitting = [free for free in healthy if free.holds(sizes[free.device.id], 0)]
    if len(fitting) >= count:
        return "requests with higher priority are ahead on the devices that would fit"

    best = max(
        healthy, key=lambda free: (free.approx, free.device.foreign_memory_bytes or 0)
    )
    size = sizes[best.device.id]
    if best.share >= size and best not in fitting:
        foreign = format_bytes(best.device.foreign_memory_bytes or 0)
        return f"{best.device.name} {best.device.index}: {foreign} of its memory are held by processes outside aistack"
    if count > 1:
        return f"waits for {size} on each of {count} devices; {len(fitting)} of {count} are free"
    return f"waits for {size} of a device; the most that is free on one is {max(best.share, 0)}"
