"""Where a request fits: a decision without effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Inventory,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.exceptions import UnknownProfile, Unsatisfiable

from .capacity_value import CapacityValue
from .demand import WHOLE
from .device_capacity import CLOSE, DeviceCapacity, as_float, bytes_of
from .sizing import (
    beside_share,
    is_model,
    most_alike,
    no_device,
    of_one_maker,
    sizes_on,
    too_much,
)

UNSATISFIABLE = Unsatisfiable.__name__
UNKNOWN_PROFILE = UnknownProfile.__name__
NOTHING_KEPT: Mapping[str, Fraction] = {}
MOST_COMBINATIONS = 100


@dataclass(frozen=True, kw_only=True)
class PlacementFailure:
    """Why a spec got no slices.

    Attributes:
        reason: one sentence for the one who asked.
        never: why no state of this inventory could hold it, as the name of the error to
            raise; empty when one could.
    """

    reason: str
    never: str = ""


class Capacity:
    """What is free on the devices of one host, or of several.

    Args:
        inventory: the devices; each says which host it is on.
        taken: slices that are held.

    Attributes:
        worth: what room on a GPU is worth to those who are likely to ask for it; None
            while that is not known, and then a hole is worth its size.
    """

    def __init__(self, inventory: Inventory, taken: Iterable[Slice] = ()) -> None:
        self.inventory = inventory
        self.worth: CapacityValue | None = None
        self._free = {device.id: DeviceCapacity(device) for device in inventory.devices}
        self._needs: dict[Spec, dict[str, dict[str, Fraction]]] = (
            inventory.known.setdefault("needs", {})
        )
        self._hosts: dict[str, list[Device]] = {}
        for device in inventory.devices:
            self._hosts.setdefault(device.host, []).append(device)
        self.take(taken)

    def copy(self) -> Capacity:
        """A room of its own in the same state."""
        return self._twin(
            {device_id: free.copy() for device_id, free in self._free.items()}
        )

    def emptied(self) -> Capacity:
        """A room of its own in which nothing is held, and nobody's taste known."""
        twin = self._twin(
            {device.id: DeviceCapacity(device) for device in self.inventory.devices}
        )
        twin.worth = None
        return twin

    def _twin(self, free: dict[str, DeviceCapacity]) -> Capacity:
        twin = Capacity.__new__(Capacity)
        twin.worth = self.worth
        twin.inventory = self.inventory
        twin._hosts = self._hosts
        twin._needs = self._needs
        twin._free = free
        return twin

    def take(self, slices: Iterable[Slice]) -> None:
        """Slices are held from now on."""
        for piece in slices:
            free = self._free.get(piece.device_id)
            if free is not None:
                free.take(piece)

    def give(self, slices: Iterable[Slice]) -> None:
        """Slices are held no longer."""
        for piece in slices:
            free = self._free.get(piece.device_id)
            if free is not None:
                free.give(piece)

    def share(self, device_id: str) -> Fraction:
        """The share of a device that could still be granted; below 0 where more is
        spoken for than there is.
        """
        return self._free[device_id].share

    def approx(self, device_id: str) -> float:
        """`share`, nearly, and fast."""
        return self._free[device_id].approx

    def memory(self, device_id: str) -> int:
        """The bytes of a device that could still be granted."""
        return self._free[device_id].memory

    def device(self, device_id: str) -> Device:
        """The device of that id, which must be there."""
        return self._free[device_id].device

    def hold(self, device_id: str, share: Fraction) -> None:
        """A share of a device, memory and all, is spoken for."""
        self.take([self.piece(device_id, share)])

    def piece(self, device_id: str, share: Fraction) -> Slice:
        """That share of a device, of no use but to be counted."""
        memory_bytes = bytes_of(share, self._free[device_id].device)
        return Slice(
            device_id=device_id,
            kind=SliceKind.SHARE,
            fraction=share,
            memory_bytes=memory_bytes,
        )

    # -- placing -----------------------------------------------------------------------

    def place(
        self, spec: Spec, *, host: str = "", kept: Mapping[str, Fraction] = NOTHING_KEPT
    ) -> tuple[Slice, ...] | PlacementFailure:
        """Slices for `spec`, all on one host; or why not.

        A share goes to the device that loses the least worth by it and then to the
        fullest, so that holes which others need and whole devices stay; several whole
        devices go where NVLink joins them.

        Args:
            host: on which machine; one that has no device here means any.
            kept: shares of devices that are kept for others.
        """
        kind = self._kind(spec)
        refused: PlacementFailure | None = None
        for name in [host] if host in self._hosts else self._fullest_first(spec):
            answer = self._place_on(name, spec, kind, kept)
            if not isinstance(answer, PlacementFailure):
                return answer
            if refused is None or (refused.never and not answer.never):
                refused = answer
        return refused or PlacementFailure(
            reason=no_device(spec, self.inventory), never=UNSATISFIABLE
        )

    def needs(self, spec: Spec, host: str = "") -> Mapping[str, Mapping[str, Fraction]]:
        """For each host, the devices that could hold a slice of `spec` when idle, with
        the share it would take.
        """
        found = self._needs.get(spec)
        if found is None:
            kind = self._kind(spec)
            found = self._needs[spec] = sizes_on(
                spec, {name: self._suitable(name, spec, kind) for name in self._hosts}
            )
        return {host: found[host]} if host in found else found

    def count(self, spec: Spec) -> int:
        """How many devices `spec` needs."""
        return int(spec.amount) if spec.unit is Unit.DEVICES else spec.count

    def is_free(self, device_id: str, share: Fraction) -> bool:
        """Whether a device answers and has `share` free now."""
        free = self._free[device_id]
        return free.device.is_healthy and free.holds(share, 0)

    def _fullest_first(self, spec: Spec) -> list[str]:
        """The hosts that may have room, in the order of best fit; when there is none,
        one that could have it.
        """
        if len(self._hosts) == 1:
            return list(self._hosts)
        count = self.count(spec)
        ranked = []
        able = list(self._hosts)[:1]
        for name, sizes in self.needs(spec).items():
            shares = [self._free[device_id].approx for device_id in sizes]
            if len(shares) < count:
                continue
            able = [name]
            size = as_float(min(sizes.values())) - CLOSE
            fitting = [share for share in shares if share >= size]
            if len(fitting) >= count:
                ranked.append((min(fitting) if count == 1 else 1.0, sum(shares), name))
        return [name for *_, name in sorted(ranked)] or able

    def _kind(self, spec: Spec) -> DeviceKind:
        if spec.target is not None:
            return spec.target
        is_gpu = (
            spec.needs_host or spec.models or self.inventory.of_kind(DeviceKind.GPU)
        )
        return DeviceKind.GPU if is_gpu else DeviceKind.CPU

    def _suitable(self, host: str, spec: Spec, kind: DeviceKind) -> list[Device]:
        of_kind = [device for device in self._hosts[host] if device.kind is kind]
        return (
            [d for d in of_kind if is_model(d.name, spec.models)]
            if spec.models
            else of_kind
        )

    def _place_on(
        self, host: str, spec: Spec, kind: DeviceKind, kept: Mapping[str, Fraction]
    ) -> tuple[Slice, ...] | PlacementFailure:
        if spec.unit is Unit.PROFILE:
            main = self._place_profile(spec, self._suitable(host, spec, kind), kept)
        else:
            main = self._place_shares(host, spec, kind, kept)
        if isinstance(main, PlacementFailure) or not spec.needs_host:
            return main
        beside = self._place_beside(host, spec, kept)
        return beside if isinstance(beside, PlacementFailure) else (*main, beside)

    def _place_shares(
        self, host: str, spec: Spec, kind: DeviceKind, kept: Mapping[str, Fraction]
    ) -> tuple[Slice, ...] | PlacementFailure:
        sizes = self.needs(spec, host)[host]
        count = self.count(spec)
        if len(sizes) < count or (
            count > 1 and most_alike(self._free[i].device for i in sizes) < count
        ):
            suitable = self._suitable(host, spec, kind)
            why = (
                too_much(spec, kind, suitable)
                if suitable
                else no_device(spec, self.inventory)
            )
            return PlacementFailure(reason=why, never=UNSATISFIABLE)
        everything = self._free
        least = as_float(min(sizes.values())) - CLOSE
        roomy = [
            (everything[i], size)
            for i, size in sizes.items()
            if everything[i].approx >= least
        ]
        free = [
            one
            for one, size in roomy
            if one.device.is_healthy and one.holds(size, kept.get(one.device.id, 0))
        ]
        if len(free) < count:
            able = [self._free[device_id].device for device_id in sizes]
            return PlacementFailure(reason=self._no_room(able, sizes, count))
        free.sort(key=lambda one: self._waste(one, as_float(sizes[one.device.id])))
        devices: Sequence[Device] = [one.device for one in free]
        if count > 1:
            devices = of_one_maker(devices, count)
            if not devices:
                return PlacementFailure(
                    reason=f"waits for {count} GPUs of one maker, which one process cannot mix"
                )
        chosen = (
            devices[:count]
            if count == 1 or count == len(devices)
            else _joined(devices, count)
        )
        return tuple(self._cut(device, sizes[device.id]) for device in chosen)

    def _waste(
        self, free: DeviceCapacity, size: float
    ) -> tuple[float, float, int, str]:
        """How much worth is lost by cutting `size` from a device, how much would be
        left over, and what breaks ties.
        """
        device = free.device
        loss = 0.0
        if self.worth is not None:
            # In thousandths, so that what fits exactly (thirds in two thirds) still
            # does.
            loss = round(
                self.worth.loss(
                    min(WHOLE, int(free.approx * WHOLE) + 1), int(size * WHOLE + CLOSE)
                ),
                6,
            )
        return loss, free.approx - size, device.index, device.id

    def _cut(self, device: Device, share: Fraction) -> Slice:
        memory_bytes = bytes_of(share, device)
        if device.kind is DeviceKind.CPU:
            cores = self._quietest_cores(device, max(1, int(share * len(device.cores))))
            return Slice(
                device_id=device.id,
                kind=SliceKind.CPU,
                fraction=share,
                memory_bytes=memory_bytes,
                cores=cores,
            )
        kind = SliceKind.GPU if share == 1 else SliceKind.SHARE
        return Slice(
            device_id=device.id,
            kind=kind,
            fraction=share,
            memory_bytes=memory_bytes,
            uuid=device.id,
        )

    def _quietest_cores(self, device: Device, wanted: int) -> tuple[int, ...]:
        """The cores with the least granted on them; a slice below one core shares
        it.
        """
        load = self._free[device.id].load()
        return tuple(
            sorted(
                sorted(device.cores, key=lambda core: (load.get(core, 0), core))[
                    :wanted
                ]
            )
        )

    def _place_profile(
        self, spec: Spec, devices: Sequence[Device], kept: Mapping[str, Fraction]
    ) -> tuple[Slice, ...] | PlacementFailure:
        if spec.count > 1:
            why = f"{spec} cannot be had: a process uses one MIG instance; ask for {spec.profile} once for each worker"
            return PlacementFailure(reason=why, never=UNSATISFIABLE)
        if not devices:
            return PlacementFailure(
                reason=no_device(spec, self.inventory), never=UNSATISFIABLE
            )
        matching = [(d, m) for d in devices for m in d.mig if m.profile == spec.profile]
        if not matching:
            if any(spec.profile in d.mig_offers for d in devices):
                return PlacementFailure(
                    reason=f"waits for an instance {spec.profile} to be created; none is there yet"
                )
            offered = sorted({m.profile for d in devices for m in d.mig})
            have = (
                f"this host offers {', '.join(offered)}"
                if offered
                else "no GPU of this host has MIG instances"
            )
            return PlacementFailure(
                reason=f"{spec} cannot be had here: {have}", never=UNKNOWN_PROFILE
            )
        free = [
            (d, m)
            for d, m in matching
            if d.is_healthy and m.uuid not in self._free[d.id].uuids()
        ]
        by_device: dict[str, int] = {}
        for device, _ in free:
            by_device[device.id] = by_device.get(device.id, 0) + 1
        free = [
            (d, m) for d, m in free if by_device[d.id] > _kept_instances(d, m, kept)
        ]
        if not free:
            return PlacementFailure(
                reason=f"waits for {spec}: all {len(matching)} instances of that profile are taken"
            )
        device, instance = min(free, key=lambda pair: (pair[0].index, pair[1].uuid))
        return (_cut_instance(device, instance),)

    def _place_beside(
        self, host: str, spec: Spec, kept: Mapping[str, Fraction]
    ) -> Slice | PlacementFailure:
        """Cores and memory of the host that go with a device."""
        device = next((d for d in self._hosts[host] if d.kind is DeviceKind.CPU), None)
        if device is None:
            return PlacementFailure(
                reason=f"{spec} cannot be had: no cores of this host are leased out (providers: add cpu)",
                never=UNSATISFIABLE,
            )
        share = beside_share(spec, device)
        if share > 1:
            have = f"{len(device.cores)} cores and {format_bytes(device.memory_bytes)}"
            return PlacementFailure(
                reason=f"{spec} cannot be had: this host has {have}",
                never=UNSATISFIABLE,
            )
        free = self._free[device.id]
        wanted = share + kept.get(device.id, 0)
        if (
            wanted > free.share
            or spec.host_memory_bytes > free.memory
            or not device.is_healthy
        ):
            have = f"{int(max(free.share, Fraction(0)) * len(device.cores))} cores"
            reason = f"waits for cores or memory of the host: {have} and {format_bytes(max(free.memory, 0))} are free"
            return PlacementFailure(reason=reason)
        cores = self._quietest_cores(device, spec.host_cores) if spec.host_cores else ()
        memory_bytes = spec.host_memory_bytes
        return Slice(
            device_id=device.id,
            kind=SliceKind.CPU,
            fraction=share,
            memory_bytes=memory_bytes,
            cores=cores,
        )

    def _no_room(
        self, able: Sequence[Device], sizes: Mapping[str, Fraction], count: int
    ) -> str:
        healthy = [d for d in able if d.is_healthy]
        if len(healthy) < count:
            broken = next(d for d in able if not d.is_healthy)
            return f"waits for a device that does not answer: {broken.name} {broken.index} {broken.problem}"
        fitting = [d for d in healthy if self._free[d.id].holds(sizes[d.id], 0)]
        if len(fitting) >= count:
            return "an earlier request goes first on the devices that would fit"
        best = max(
            healthy, key=lambda d: (self._free[d.id].approx, d.foreign_memory_bytes)
        )
        if self.share(best.id) >= sizes[best.id] and best not in fitting:
            strangers = format_bytes(best.foreign_memory_bytes)
            return f"{best.name} {best.index}: {strangers} of its memory are held by processes outside aistack"
        if count > 1:
            return f"waits for {sizes[best.id]} on each of {count} devices; {len(fitting)} of {count} are free"
        return f"waits for {sizes[best.id]} of a device; the most that is free on one is {max(self.share(best.id), 0)}"


def place(
    spec: Spec,
    inventory: Inventory,
    taken: Iterable[Slice],
    *,
    kept: Mapping[str, Fraction] = NOTHING_KEPT,
) -> tuple[Slice, ...] | PlacementFailure:
    """Slices for `spec` beside those `taken`, or why not; see
    :meth:`Capacity.place`.
    """
    return Capacity(inventory, taken).place(spec, kept=kept)


def free_share(device: Device, taken: Iterable[Slice]) -> Fraction:
    """The share of a device that could still be granted."""
    held = sum(
        (piece.fraction for piece in taken if piece.device_id == device.id), Fraction(0)
    )
    return max(Fraction(0), 1 - held)


def _joined(free: Sequence[Device], count: int) -> Sequence[Device]:
    """The `count` devices with the most NVLink between them, then the most in one PCIe
    domain, then best fit.

    `free` comes in the order of best fit; where there are very many choices only the
    first of them are compared.
    """
    if not any(device.peers or device.domain for device in free):
        return free[:count]
    best: tuple[tuple[int, int], Sequence[Device]] | None = None
    for number, chosen in enumerate(combinations(free, count)):
        links = sum(one.id in other.peers for one, other in combinations(chosen, 2))
        near = sum(
            bool(one.domain) and one.domain == other.domain
            for one, other in combinations(chosen, 2)
        )
        if best is None or (links, near) > best[0]:
            best = (links, near), chosen
        if number >= MOST_COMBINATIONS:
            break
    return best[1] if best else free[:count]


def _cut_instance(device: Device, instance: MIGInstance) -> Slice:
    memory = (
        Fraction(instance.memory_bytes, device.memory_bytes)
        if device.memory_bytes
        else Fraction(1)
    )
    compute = (
        Fraction(instance.multiprocessors, device.multiprocessors)
        if device.multiprocessors
        else Fraction(0)
    )
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


def _kept_instances(
    device: Device, instance: MIGInstance, kept: Mapping[str, Fraction]
) -> int:
    """How many instances of that size are kept for others on a device."""
    share = kept.get(device.id, 0)
    return (
        0
        if not share
        else max(
            1,
            int(
                share / max(_cut_instance(device, instance).fraction, Fraction(1, 1000))
            ),
        )
    )
