"""Where a request fits: a decision without effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..exceptions import UnknownProfile, Unsatisfiable
from .device import FOREIGN_TOLERANCE, Device, DeviceKind, Inventory, MIGInstance, Slice, SliceKind
from .request import Spec, Unit
from .units import format_bytes

UNSATISFIABLE, UNKNOWN_PROFILE = Unsatisfiable.__name__, UnknownProfile.__name__


@dataclass(frozen=True, kw_only=True)
class Unplaced:
    """Why a spec got no slices.

    Attributes:
        reason: one sentence for the one who asked.
        never: why no state of this inventory could hold it, as the name of the error to raise; empty when one could.
        candidates: the devices nearest to holding it; they are kept for it while it waits, so that a stream of
            smaller requests cannot starve it.
    """

    reason: str
    never: str = ""
    candidates: frozenset[str] = frozenset()


def place(
    spec: Spec, inventory: Inventory, taken: Sequence[Slice], *, avoid: frozenset[str] = frozenset()
) -> tuple[Slice, ...] | Unplaced:
    """Slices for `spec` beside those `taken`, on devices not in `avoid`; or why not.

    Fractions go to the fullest device that still holds them (best fit), so whole devices stay whole.
    """
    kind, devices = _eligible(spec, inventory)
    count = _count(spec, kind)
    if not devices:
        return Unplaced(reason=_no_device(spec, inventory), never=UNSATISFIABLE)
    if spec.unit is Unit.PROFILE:
        return _place_profile(spec, devices, taken, avoid)
    sizes = {d.id: _share_of(spec, d) for d in devices}
    able = [d for d in devices if sizes[d.id] <= 1 and d.is_shareable]
    if len(able) < count:
        return Unplaced(reason=_too_much(spec, kind, devices), never=UNSATISFIABLE)
    free = [d for d in able if d.is_healthy and d.id not in avoid and _fits(d, sizes[d.id], taken)]
    if len(free) < count:
        nearest = sorted(able, key=lambda d: (d.id in avoid, not d.is_healthy, -_free_share(d, taken), d.index))
        return Unplaced(reason=_no_room(able, sizes, taken, count), candidates=frozenset(d.id for d in nearest[:count]))
    chosen = sorted(free, key=lambda d: (_free_share(d, taken) - sizes[d.id], d.index, d.id))[:count]
    return tuple(_cut(d, sizes[d.id], taken) for d in chosen)


def free_share(device: Device, taken: Iterable[Slice]) -> Fraction:
    """The share of a device that could still be granted."""
    return max(Fraction(0), _free_share(device, list(taken)))


def _eligible(spec: Spec, inventory: Inventory) -> tuple[DeviceKind, tuple[Device, ...]]:
    kind = spec.target or (DeviceKind.GPU if inventory.of_kind(DeviceKind.GPU) else DeviceKind.CPU)
    return kind, inventory.of_kind(kind)


def _count(spec: Spec, kind: DeviceKind) -> int:
    return int(spec.amount) if spec.unit is Unit.DEVICES else spec.count


def _share_of(spec: Spec, device: Device) -> Fraction:
    """The share of `device` that `spec` asks for; above 1 when the device is too small."""
    if spec.unit is Unit.FRACTION:
        return spec.amount
    if spec.unit is Unit.MEMORY:
        return spec.amount / device.memory_bytes if device.memory_bytes else Fraction(2)
    if spec.unit is Unit.CORES:
        return spec.amount / len(device.cores) if device.cores else Fraction(2)
    return Fraction(1)


def _free_share(device: Device, taken: Sequence[Slice]) -> Fraction:
    return 1 - sum((s.fraction for s in taken if s.device_id == device.id), Fraction(0))


def _free_memory(device: Device, taken: Sequence[Slice]) -> int:
    ours = sum(s.memory_bytes for s in taken if s.device_id == device.id)
    foreign = device.foreign_memory_bytes
    if foreign <= device.memory_bytes * FOREIGN_TOLERANCE:
        foreign = 0
    return device.memory_bytes - ours - foreign


def _fits(device: Device, share: Fraction, taken: Sequence[Slice]) -> bool:
    return share <= _free_share(device, taken) and int(share * device.memory_bytes) <= _free_memory(device, taken)


def _cut(device: Device, share: Fraction, taken: Sequence[Slice]) -> Slice:
    memory_bytes = int(share * device.memory_bytes)
    if device.kind is DeviceKind.CPU:
        cores = _quietest_cores(device, share, taken)
        return Slice(device_id=device.id, kind=SliceKind.CPU, fraction=share, memory_bytes=memory_bytes, cores=cores)
    kind = SliceKind.GPU if share == 1 else SliceKind.SHARE
    return Slice(device_id=device.id, kind=kind, fraction=share, memory_bytes=memory_bytes, uuid=device.id)


def _quietest_cores(device: Device, share: Fraction, taken: Sequence[Slice]) -> tuple[int, ...]:
    """The cores with the least granted on them: at least one; a slice below one core shares it."""
    total = len(device.cores)
    load = dict.fromkeys(device.cores, Fraction(0))
    for piece in taken:
        if piece.device_id == device.id:
            for core in piece.cores:
                load[core] = load.get(core, Fraction(0)) + piece.fraction * total / len(piece.cores)
    wanted = max(1, int(share * total))
    return tuple(sorted(sorted(device.cores, key=lambda core: (load[core], core))[:wanted]))


def _place_profile(
    spec: Spec, devices: Sequence[Device], taken: Sequence[Slice], avoid: frozenset[str]
) -> tuple[Slice, ...] | Unplaced:
    if spec.count > 1:
        why = f"{spec} cannot be had: a process can use one MIG instance; ask for {spec.profile} once for each worker"
        return Unplaced(reason=why, never=UNSATISFIABLE)
    held = {piece.uuid for piece in taken}
    matching = [(d, m) for d in devices for m in d.mig if m.profile == spec.profile]
    if not matching:
        offered = sorted({m.profile for d in devices for m in d.mig})
        have = f"this host offers {', '.join(offered)}" if offered else "no GPU of this host is cut into MIG instances"
        return Unplaced(reason=f"{spec} cannot be had here: {have}", never=UNKNOWN_PROFILE)
    free = [(d, m) for d, m in matching if d.is_healthy and d.id not in avoid and m.uuid not in held]
    if not free:
        return Unplaced(
            reason=f"waits for {spec}: all {len(matching)} instances of that profile are taken",
            candidates=frozenset(d.id for d, _ in matching),
        )
    device, instance = min(free, key=lambda pair: (pair[0].index, pair[1].uuid))
    return (_cut_instance(device, instance),)


def _cut_instance(device: Device, instance: MIGInstance) -> Slice:
    share = Fraction(instance.memory_bytes, device.memory_bytes) if device.memory_bytes else Fraction(1)
    return Slice(
        device_id=device.id,
        kind=SliceKind.MIG,
        fraction=min(share, Fraction(1)),
        memory_bytes=instance.memory_bytes,
        uuid=instance.uuid,
        profile=instance.profile,
    )


def _no_device(spec: Spec, inventory: Inventory) -> str:
    problems = f" ({'; '.join(inventory.problems)})" if inventory.problems else ""
    if spec.target is not DeviceKind.GPU:
        return f"{spec} cannot be had: this host offers no device{problems}"
    share = str(spec).removeprefix("gpu:")
    way_out = "" if spec.unit is Unit.PROFILE else f"; ask for {share} to take a share of the CPU instead"
    return f"{spec} cannot be had: this host has no GPU{problems}{way_out}"


def _too_much(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    return f"{spec} cannot be had here: {_what_there_is(spec, kind, devices)}"


def _what_there_is(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    if any(not d.is_shareable for d in devices):
        offered = sorted({m.profile for d in devices for m in d.mig})
        return f"this host's GPUs are cut into MIG instances; ask for one of {', '.join(offered) or '(none yet)'}"
    if spec.unit is Unit.MEMORY:
        return f"the largest device has {format_bytes(max(d.memory_bytes for d in devices))}"
    if spec.unit is Unit.CORES:
        return f"this host has {max(len(d.cores) for d in devices)} cores"
    noun = "GPU" if kind is DeviceKind.GPU else "CPU device"
    return f"this host has {len(devices)} {noun}{'s' if len(devices) != 1 else ''}"


def _no_room(able: Sequence[Device], sizes: dict[str, Fraction], taken: Sequence[Slice], count: int) -> str:
    healthy = [d for d in able if d.is_healthy]
    if len(healthy) < count:
        broken = next(d for d in able if not d.is_healthy)
        return f"waits for a device that does not answer: {broken.name} {broken.index} {broken.problem}"
    fitting = [d for d in healthy if _fits(d, sizes[d.id], taken)]
    if len(fitting) >= count:
        return "an earlier request goes first on the devices that would fit"
    best = max(healthy, key=lambda d: (_free_share(d, taken), d.foreign_memory_bytes))
    if _free_share(best, taken) >= sizes[best.id] and best not in fitting:
        strangers = format_bytes(best.foreign_memory_bytes)
        return f"{best.name} {best.index}: {strangers} of its memory are held by processes outside aistack"
    if count > 1:
        return f"waits for {sizes[best.id]} on each of {count} devices; {len(fitting)} of {count} are free"
    return f"waits for {sizes[best.id]} of a device; the most that is free on one is {_free_share(best, taken)}"
