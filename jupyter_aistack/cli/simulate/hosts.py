"""The machines of a replay: hosts with GPUs, and what is free on them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory, Slice
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.placement.cache import DeviceFacts
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.verdict import PlacementFailure


@lru_cache(maxsize=64)
def whole_gpus(gpus: int) -> Spec:
    """The spec of so many whole GPUs."""
    return parse_spec(f"gpu:{gpus}")


class HostPool:
    """Hosts of equal GPUs; the last has what is left over.

    One :class:`Capacity` is kept for all of them and asked for places host by host;
    beside it stands how many whole GPUs each host has free, so that the host that fits
    best is found without asking.

    Args:
        gpus: how many there are in all.
        per_host: how many a host has.
        memory_bytes: of each GPU.
    """

    def __init__(self, gpus: int, *, per_host: int, memory_bytes: int) -> None:
        self.gpus = gpus
        self.per_host = per_host
        self.memory_bytes = memory_bytes
        self.inventories = self._build_hosts()
        self.hosts = list(self.inventories)
        all_devices = tuple(
            device
            for inventory in self.inventories.values()
            for device in inventory.devices
        )
        self.capacity = Capacity(DeviceFacts(Inventory(host="", devices=all_devices)))
        self.host_of = {device.id: device.host for device in all_devices}
        self.touched: set[str] = set()
        """Hosts that something was ever taken of."""
        self.free = {
            host: len(inventory.devices) for host, inventory in self.inventories.items()
        }
        # The state of a host, as a bit for each GPU taken, and places found in it.
        self._bit = {device.id: 1 << device.index for device in all_devices}
        self._taken = dict.fromkeys(self.hosts, 0)
        self._places: dict[tuple[str, int, int], tuple[Slice, ...] | None] = {}
        self._by_free: list[set[str]] = [set() for _ in range(per_host + 1)]
        for host, free in self.free.items():
            self._by_free[free].add(host)

    def _build_hosts(self) -> dict[str, Inventory]:
        inventories = {}
        for number, start in enumerate(range(0, self.gpus, self.per_host)):
            host = f"host-{number:05d}"
            count = min(self.per_host, self.gpus - start)
            devices = tuple(self._device(host, index) for index in range(count))
            inventories[host] = Inventory(host=host, devices=devices)
        return inventories

    def _device(self, host: str, index: int) -> Device:
        return Device(
            id=f"{host}-gpu-{index}",
            host=host,
            kind=DeviceKind.GPU,
            index=index,
            name="simulated GPU",
            memory_bytes=self.memory_bytes,
            simulated=True,
        )

    def best_host(self, gpus: int) -> str | None:
        """The host with the fewest free GPUs that still has so many; the first of
        several. None when there is none.
        """
        for hosts in self._by_free[gpus:]:
            if hosts:
                return min(hosts)
        return None

    def emptiest(self, hosts: Iterable[str], gpus: int) -> str | None:
        """The host of `hosts` with most free GPUs, if it has so many."""
        best = max(hosts, key=lambda host: self.free[host], default=None)
        return best if best is not None and self.free[best] >= gpus else None

    def place(self, gpus: int, host: str) -> tuple[Slice, ...] | None:
        """Whole GPUs of a host, not yet taken; None when it has not so many.

        The capacity is asked once for each state of a host: in the same state it gives
        the same answer.
        """
        key = host, self._taken[host], gpus
        if key not in self._places:
            place = self.capacity.place(whole_gpus(gpus), host=host)
            self._places[key] = None if isinstance(place, PlacementFailure) else place
        return self._places[key]

    def take(self, slices: tuple[Slice, ...]) -> None:
        """Whole GPUs of one host are held from now on."""
        self.capacity.allocate(slices)
        self.touched.add(self.host_of[slices[0].device_id])
        self._count(slices, -1)

    def give(self, slices: tuple[Slice, ...]) -> None:
        """Whole GPUs of one host are held no longer."""
        self.capacity.release(slices)
        self._count(slices, 1)

    def _count(self, slices: tuple[Slice, ...], sign: int) -> None:
        host = self.host_of[slices[0].device_id]
        for slice_ in slices:
            self._taken[host] ^= self._bit[slice_.device_id]
        before = self.free[host]
        after = before + sign * len(slices)
        self.free[host] = after
        self._by_free[before].discard(host)
        self._by_free[after].add(host)
