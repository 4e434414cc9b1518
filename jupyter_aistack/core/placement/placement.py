"""Where a request fits: a decision without effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import (
    EVERY_DEVICE,
    Device,
    DeviceKind,
    Inventory,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_bytes

from .cache import DeviceFacts, Sizes
from .capacity_value import CapacityValue
from .demand import WHOLE
from .device_capacity import CLOSE, DeviceCapacity, as_float, bytes_of
from .instances import place_instance
from .refusals import no_device, of_two_makers, too_much, waits_for_drained, why_waiting
from .sizing import host_share, is_model, most_alike, of_one_maker, sizes_on
from .tenants import EVERYBODY, EXCLUDED, ONE_USER, Tenants
from .topology import best_connected
from .verdict import UNSATISFIABLE, PlacementFailure, PlacementVerdict

NOTHING_KEPT: Mapping[str, Fraction] = {}


class Capacity:
    """What is free on the devices of one host, or of several.

    Args:
        facts: the devices, and what is known of them.
        held: slices that are held.
        tenants: whose GPUs they are, where each is one user's at a time.

    Attributes:
        inventory: the devices; each says which host it is on.
        value: what capacity of a GPU is worth to those who are likely to ask for it;
            None while that is not known, and then a hole is worth its size.
    """

    def __init__(
        self,
        facts: DeviceFacts,
        held: Iterable[Slice] = (),
        *,
        tenants: Tenants = EVERYBODY,
    ) -> None:
        self.inventory = facts.inventory
        self.value: CapacityValue | None = None
        self.tenants = tenants
        self._facts = facts
        self._hosts = facts.hosts
        self._free = {
            device.id: DeviceCapacity(device) for device in self.inventory.devices
        }
        self.allocate(held)

    def copy(self) -> Capacity:
        """An independent copy in the same state."""
        twin = Capacity.__new__(Capacity)
        twin.value = self.value
        twin.tenants = self.tenants.copy()
        twin.inventory = self.inventory
        twin._facts = self._facts
        twin._hosts = self._hosts
        twin._free = {device_id: free.copy() for device_id, free in self._free.items()}
        return twin

    def allocate(self, slices: Iterable[Slice], user: str = "") -> None:
        """Slices are held from now on, by a lease of `user`; those of unknown devices
        do not count.
        """
        held = tuple(slices)
        self.tenants.move_in(held, user)
        for slice_ in held:
            for touched in self._touched(slice_):
                touched.allocate(slice_)

    def release(self, slices: Iterable[Slice], user: str = "") -> None:
        """Slices are held no longer; with `user`, by a lease of that user which has
        ended.
        """
        free = tuple(slices)
        self.tenants.move_out(free, user)
        for slice_ in free:
            for touched in self._touched(slice_):
                touched.release(slice_)

    def _touched(self, slice_: Slice) -> Iterable[DeviceCapacity]:
        """What a slice takes from: its device, where that is here."""
        if slice_.device_id == EVERY_DEVICE:
            return self._free.values()
        free = self._free.get(slice_.device_id)
        return () if free is None else (free,)

    def share(self, device_id: str) -> Fraction:
        """The share of a device that could still be granted; it may be below 0."""
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

    def is_free(self, device_id: str, share: Fraction, user: str = "") -> bool:
        """Whether a device may be granted and has `share` free now, for `user`."""
        free = self._free[device_id]
        is_open = not self.tenants.others(device_id, user)
        return is_open and free.device.is_schedulable and free.holds(share, 0)

    def holds(self, device_id: str, share: Fraction) -> bool:
        """Whether a device has `share` free, be it granted now or not."""
        return self._free[device_id].holds(share, 0)

    def hold(self, device_id: str, share: Fraction, user: str = "") -> None:
        """A share of a device, memory and all, is held from now on, for `user`."""
        self.allocate([self.placeholder(device_id, share)], user)

    def placeholder(self, device_id: str, share: Fraction) -> Slice:
        """A slice of that share of a device which is only there to be counted."""
        return Slice(
            device_id=device_id,
            kind=SliceKind.SHARE,
            fraction=share,
            memory_bytes=bytes_of(share, self._free[device_id].device),
        )

    # -- placing -----------------------------------------------------------------------

    def place(
        self,
        spec: Spec,
        *,
        host: str = "",
        kept: Mapping[str, Fraction] = NOTHING_KEPT,
        user: str = "",
    ) -> PlacementVerdict:
        """Slices for `spec`, all on one host; or why not.

        A share goes to the device that loses the least value by it and then to the
        fullest, so that holes which others need and whole devices stay; several whole
        devices go where NVLink joins them.

        Args:
            host: on which machine; a machine that has no device here means any.
            kept: shares of devices that are kept for others.
            user: who is to have them; empty where that does not matter.
        """
        kind = self._kind(spec)
        closed = self.tenants.closed_to(user)
        kept = {**kept, **dict.fromkeys(closed, EXCLUDED)} if closed else kept
        failure: PlacementFailure | None = None
        for name in [host] if host in self._hosts else self._fullest_first(spec):
            verdict = self._place_on(name, spec, kind, kept)
            if not isinstance(verdict, PlacementFailure):
                return verdict
            # "Not now" on one host outweighs "never" on the others.
            if failure is None or (failure.never and not verdict.never):
                failure = verdict
        if failure is None:
            return self._never(no_device(spec, self.inventory))
        able = {i for sizes in self.needs(spec, host).values() for i in sizes}
        if not failure.never and not able.isdisjoint(closed):
            return PlacementFailure(reason=ONE_USER)
        return failure

    def when_idle(self, spec: Spec, host: str = "") -> PlacementVerdict:
        """Where `spec` would go on a host (empty: on any) if nothing were held."""
        key = (spec, host)
        verdict = self._facts.when_idle.get(key)
        if verdict is None:
            verdict = Capacity(self._facts).place(spec, host=host)
            self._facts.when_idle[key] = verdict
        return verdict

    def needs(self, spec: Spec, host: str = "") -> Sizes:
        """For each host, the devices that could hold a slice of `spec` when idle, with
        the share it would take.
        """
        sizes = self._facts.sizes.get(spec)
        if sizes is None:
            kind = self._kind(spec)
            suitable = {name: self._suitable(name, spec, kind) for name in self._hosts}
            sizes = sizes_on(spec, suitable)
            self._facts.sizes[spec] = sizes
        if host in sizes:
            return {host: sizes[host]}
        return sizes

    def count(self, spec: Spec) -> int:
        """How many devices `spec` needs."""
        if spec.unit is Unit.DEVICES:
            return int(spec.amount)
        return spec.count

    def _fullest_first(self, spec: Spec) -> list[str]:
        """The hosts that may hold a spec now, in the order of best fit; when there is
        none, a host that could have held it.
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
                tightest = min(fitting) if count == 1 else 1.0
                ranked.append((tightest, sum(shares), name))
        return [name for *_, name in sorted(ranked)] or able

    def _kind(self, spec: Spec) -> DeviceKind:
        if spec.target is not None:
            return spec.target
        if spec.needs_host or spec.models or self.inventory.of_kind(DeviceKind.GPU):
            return DeviceKind.GPU
        return DeviceKind.CPU

    def _suitable(self, host: str, spec: Spec, kind: DeviceKind) -> list[Device]:
        """The devices of a host that are of the kind and of the models wanted."""
        of_kind = [device for device in self._hosts[host] if device.kind is kind]
        if not spec.models:
            return of_kind
        return [device for device in of_kind if is_model(device.name, spec.models)]

    def _place_on(
        self, host: str, spec: Spec, kind: DeviceKind, kept: Mapping[str, Fraction]
    ) -> PlacementVerdict:
        if spec.unit is Unit.PROFILE:
            devices = self._suitable(host, spec, kind)
            main = place_instance(spec, devices, self._free, kept, self.inventory)
        else:
            main = self._place_shares(host, spec, kind, kept)
        if isinstance(main, PlacementFailure) or not spec.needs_host:
            return main

        beside = self._place_beside(host, spec, kept)
        if isinstance(beside, PlacementFailure):
            return beside
        return (*main, beside)

    def _place_shares(
        self, host: str, spec: Spec, kind: DeviceKind, kept: Mapping[str, Fraction]
    ) -> PlacementVerdict:
        sizes = self.needs(spec, host)[host]
        count = self.count(spec)
        if not self._are_enough(sizes, count):
            suitable = self._suitable(host, spec, kind)
            if not suitable:
                return self._never(no_device(spec, self.inventory))
            return self._never(too_much(spec, kind, suitable))

        fitting = self._fitting(sizes, kept)
        if len(fitting) < count:
            able = [self._free[device_id] for device_id in sizes]
            return PlacementFailure(reason=why_waiting(able, sizes, count))

        fitting.sort(key=lambda free: self._waste(free, sizes[free.device.id]))
        devices: Sequence[Device] = [free.device for free in fitting]
        if count > 1:
            devices = best_connected(of_one_maker(devices, count), count)
            if not devices:
                return PlacementFailure(reason=of_two_makers(count))
        return tuple(self._cut(device, sizes[device.id]) for device in devices[:count])

    def _are_enough(self, sizes: Mapping[str, Fraction], count: int) -> bool:
        """Whether an idle host has so many devices that one process can use."""
        if len(sizes) < count:
            return False
        if count == 1:
            return True
        return most_alike(self._free[device_id].device for device_id in sizes) >= count

    def _fitting(
        self, sizes: Mapping[str, Fraction], kept: Mapping[str, Fraction]
    ) -> list[DeviceCapacity]:
        """The devices that may be granted so much beside what is kept."""
        everything = self._free
        # Most devices are full: a float tells that before anything exact is computed.
        least = as_float(min(sizes.values())) - CLOSE
        roomy = [
            (everything[device_id], size)
            for device_id, size in sizes.items()
            if everything[device_id].approx >= least
        ]
        return [
            free
            for free, size in roomy
            if free.device.is_schedulable
            and free.holds(size, kept.get(free.device.id, 0))
        ]

    def _waste(
        self, free: DeviceCapacity, share: Fraction
    ) -> tuple[float, float, int, str]:
        """How much value is lost by cutting `share` from a device, how much would be
        left over, and what breaks ties.
        """
        device = free.device
        size = as_float(share)
        loss = 0.0
        if self.value is not None:
            # In thousandths, so that what fits exactly (thirds in two thirds) still
            # does.
            free_milli = min(WHOLE, int(free.approx * WHOLE) + 1)
            size_milli = int(size * WHOLE + CLOSE)
            loss = round(self.value.value_lost(free_milli, size_milli), 6)
        return loss, free.approx - size, device.index, device.id

    def _cut(self, device: Device, share: Fraction) -> Slice:
        memory_bytes = bytes_of(share, device)
        if device.kind is DeviceKind.CPU:
            cores = max(1, int(share * len(device.cores)))
            return Slice(
                device_id=device.id,
                kind=SliceKind.CPU,
                fraction=share,
                memory_bytes=memory_bytes,
                cores=self._free[device.id].quietest_cores(cores),
            )
        return Slice(
            device_id=device.id,
            kind=SliceKind.GPU if share == 1 else SliceKind.SHARE,
            fraction=share,
            memory_bytes=memory_bytes,
            uuid=device.id,
        )

    def _place_beside(
        self, host: str, spec: Spec, kept: Mapping[str, Fraction]
    ) -> Slice | PlacementFailure:
        """Cores and memory of the host that go with a device."""
        device = next((d for d in self._hosts[host] if d.kind is DeviceKind.CPU), None)
        if device is None:
            why = "no cores of this host are leased out (providers: add cpu)"
            return self._never(f"{spec} cannot be had: {why}")

        share = host_share(spec, device)
        if share > 1:
            have = f"{len(device.cores)} cores and {format_bytes(device.memory_bytes)}"
            return self._never(f"{spec} cannot be had: this host has {have}")

        free = self._free[device.id]
        wanted = share + kept.get(device.id, 0)
        if device.drain is not None:
            return PlacementFailure(reason=waits_for_drained(device))
        is_short = wanted > free.share or spec.host_memory_bytes > free.memory
        if is_short or not device.is_healthy:
            cores = int(max(free.share, Fraction(0)) * len(device.cores))
            have = f"{cores} cores and {format_bytes(max(free.memory, 0))}"
            return PlacementFailure(
                reason=f"waits for cores or memory of the host: {have} are free"
            )
        return Slice(
            device_id=device.id,
            kind=SliceKind.CPU,
            fraction=share,
            memory_bytes=spec.host_memory_bytes,
            cores=free.quietest_cores(spec.host_cores) if spec.host_cores else (),
        )

    def _never(self, reason: str) -> PlacementFailure:
        return PlacementFailure(reason=reason, never=UNSATISFIABLE)


def place(
    spec: Spec,
    inventory: Inventory,
    held: Iterable[Slice],
    *,
    kept: Mapping[str, Fraction] = NOTHING_KEPT,
) -> PlacementVerdict:
    """Slices for `spec` beside those `held`, or why not: see `Capacity.place`."""
    return Capacity(DeviceFacts(inventory), held).place(spec, kept=kept)


def free_share(device: Device, held: Iterable[Slice]) -> Fraction:
    """The share of a device that could still be granted."""
    of_device = (device.id, EVERY_DEVICE)
    taken = (slice_.fraction for slice_ in held if slice_.device_id in of_device)
    return max(Fraction(0), 1 - sum(taken, Fraction(0)))
