"""Whose memory it is: what is in use on a device, told apart into that of leases and
that of others.

What cannot be seen is unknown, and not absent. A driver may list no processes at all
(WSL), keep the memory of each to itself (WDDM, vGPU), list ids of another PID namespace
(a container), or leave out the processes of another namespace (NVIDIA's open kernel
modules). The device's own figure still tells how much is in use: what leases cannot
hold of it is others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .device import Device, Inventory, ProcessUse
from .units import GIB

UNEXPLAINED_BYTES = GIB
"""So much may be in use beyond what a complete list adds up to: page tables, contexts
and servers of the driver.
"""


@dataclass(frozen=True, kw_only=True)
class Holders:
    """Who may hold memory on the devices of a host.

    Attributes:
        ours: the processes of its live leases.
        elsewhere: ids on the devices' lists that name no process of this PID namespace:
            they may be ours, or not.
        granted: bytes that the live leases have of each device, by its id.
        on_device: the processes of the live leases of each device, by its id.
    """

    ours: frozenset[int] = frozenset()
    elsewhere: frozenset[int] = frozenset()
    granted: Mapping[str, int] = field(default_factory=dict)
    on_device: Mapping[str, frozenset[int]] = field(default_factory=dict)


def is_to_be_told_apart(device: Device) -> bool:
    """Whether anybody may hold memory on a device that a lease does not know of."""
    if device.simulated:
        return False
    is_listed = device.processes is None or bool(device.processes)
    return is_listed or (device.used_bytes or 0) > UNEXPLAINED_BYTES


def with_foreign(inventory: Inventory, holders: Holders) -> Inventory:
    """The inventory, each of its devices as `told_apart` has it."""
    devices = tuple(told_apart(device, holders) for device in inventory.devices)
    return replace(inventory, devices=devices)


def told_apart(device: Device, holders: Holders) -> Device:
    """The device, with the memory that processes of leases hold, and that others do.

    Where all processes are listed with what they hold, both are sums, unless more is in
    use than the driver needs beside them. Elsewhere, and then, the others hold at least
    what is in use and cannot be the leases': these hold what their processes are known
    to, or at most what was granted.
    """
    listed = device.processes or ()
    ours = [use for use in listed if use.pid in holders.ours]
    others = [
        use
        for use in listed
        if use.pid not in holders.ours and use.pid not in holders.elsewhere
    ]
    holding = holders.on_device.get(device.id, frozenset())
    strays = [
        use
        for use in listed
        if use.pid not in holding and use.pid not in holders.elsewhere
    ]
    granted_bytes = holders.granted.get(device.id, 0)
    is_listed = device.processes is not None and not any(
        use.pid in holders.elsewhere for use in listed
    )
    # A device without a lease has nothing of ours, whatever cannot be seen there.
    is_own_known = not granted_bytes or (is_listed and _is_complete(ours))
    is_all_known = is_listed and _is_complete(listed)
    own_bytes = _known_bytes(ours)
    own_most = own_bytes if is_own_known else max(own_bytes, granted_bytes)
    tolerated = UNEXPLAINED_BYTES if is_all_known else 0
    foreign = _foreign_bytes(device, _known_bytes(others), own_most, tolerated)
    is_exact = is_own_known and device.used_bytes is not None
    is_known = is_all_known or is_exact or foreign > 0
    return replace(
        device,
        strays=tuple(strays),
        own_memory_bytes=own_bytes if is_own_known else None,
        foreign_memory_bytes=foreign if is_known else None,
    )


def _foreign_bytes(device: Device, listed: int, own_most: int, tolerated: int) -> int:
    """What others hold at least: what is listed, or more where what is in use beside
    the most that leases hold is not explained by it.
    """
    if device.used_bytes is None:
        return listed
    beside_ours = device.used_bytes - own_most
    return beside_ours if beside_ours > listed + tolerated else listed


def _known_bytes(uses: Iterable[ProcessUse]) -> int:
    return sum(use.memory_bytes or 0 for use in uses)


def _is_complete(uses: Iterable[ProcessUse]) -> bool:
    return all(use.memory_bytes is not None for use in uses)
