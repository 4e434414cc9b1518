"""Whose GPU it is, where a GPU is one user's at a time.

A GPU that is cut into MIG instances may have several: each instance has memory and
multiprocessors of its own. A lease that is suspended keeps its user on the GPU, so that
it can always return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, DeviceKind, Slice

ONE_USER = (
    "waits for a GPU on which nobody else has a lease: each is one user's at a time"
)
EXCLUDED = Fraction(2)
"""More than there is of a device: kept for others, nothing of it can be had."""


class Tenants:
    """How many leases each user has on each GPU.

    Args:
        devices: those of the inventory.
    """

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._users: dict[str, Counter[str]] = {
            device.id: Counter()
            for device in devices
            if device.kind is DeviceKind.GPU and device.is_uncut
        }

    def copy(self) -> Tenants:
        """An independent copy in the same state."""
        twin = Tenants()
        twin._users = {device_id: +users for device_id, users in self._users.items()}
        return twin

    def move_in(self, slices: Iterable[Slice], user: str) -> None:
        """A user has a lease of these slices from now on."""
        self._count(slices, user, 1)

    def move_out(self, slices: Iterable[Slice], user: str) -> None:
        """That lease has ended."""
        self._count(slices, user, -1)

    def _count(self, slices: Iterable[Slice], user: str, number: int) -> None:
        for device_id in {slice_.device_id for slice_ in slices}:
            if user and device_id in self._users:
                self._users[device_id][user] += number

    def others(self, device_id: str, user: str) -> int:
        """How many leases other users have on a device; nobody is another to no user."""
        users = self._users.get(device_id)
        if not users or not user:
            return 0
        return users.total() - users[user]

    def closed_to(self, user: str) -> list[str]:
        """The devices of which a user can have nothing while others have leases."""
        return [each for each in self._users if self.others(each, user)]

    def are_of(self, devices: Iterable[str]) -> frozenset[str]:
        """Those of some devices that are one user's at a time."""
        return frozenset(self._users.keys() & frozenset(devices))


class Everybody(Tenants):
    """Any user may have leases of any device."""

    def copy(self) -> Tenants:
        return self

    def others(self, device_id: str, user: str) -> int:
        return 0


EVERYBODY: Tenants = Everybody()
