"""What follows from the devices alone, worked out once for as long as they stay the
same.

A plan asks the same few questions of the same devices again and again: which of them
could hold this spec, and where would it go if nothing were held. The answers depend on
nothing else, so callers that plan repeatedly keep a `PlacementCache` between their
plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.spec import Spec

from .verdict import PlacementVerdict

Sizes = Mapping[str, Mapping[str, Fraction]]
"""By host and device id: the share that a spec takes of each device that could hold
it."""


class DeviceFacts:
    """Answers that depend on one inventory alone; filled in as they are asked for.

    Args:
        inventory: the devices; each says which host it is on.

    Attributes:
        inventory: as given.
        hosts: its devices by host.
        sizes: the devices that could hold a spec, see `Capacity.needs`.
        when_idle: where a spec would go on a host (empty: on any) if nothing were held.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.hosts: dict[str, list[Device]] = {}
        self.sizes: dict[Spec, Sizes] = {}
        self.when_idle: dict[tuple[Spec, str], PlacementVerdict] = {}
        for device in inventory.devices:
            self.hosts.setdefault(device.host, []).append(device)


class PlacementCache:
    """The facts of the inventory that was planned for last.

    Safe across threads: facts are never moved from one inventory to another, so the
    worst that two threads with different inventories do is to work something out twice.
    """

    def __init__(self) -> None:
        self._facts: DeviceFacts | None = None

    def facts(self, inventory: Inventory) -> DeviceFacts:
        """The facts of an inventory: those known already where it equals the last
        inventory.

        Two inventories are equal though the driver reports other free memory, which no
        placement depends on.
        """
        known = self._facts
        if known is None or known.inventory != inventory:
            known = DeviceFacts(inventory)
            self._facts = known
        return known
