"""What is free on one device."""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.device import FOREIGN_TOLERANCE, Device, Slice

CLOSE = 1e-9
"""Shares nearer to each other than this are compared exactly."""


class DeviceCapacity:
    """What is free on one device.

    Floats are compared ten times as fast as fractions: `approx` decides, and the exact
    share only where it is close.

    Args:
        device: the device, of which nothing is held yet.

    Attributes:
        device: as given.
        approx: the share that is free, nearly.
        memory: the bytes that are free.
        slices: what is held.
    """

    __slots__ = ("approx", "device", "memory", "slices")

    def __init__(self, device: Device) -> None:
        # At least so much; what cannot be told from leases is in what they were granted.
        foreign = device.foreign_memory_bytes or 0
        is_tolerable = foreign <= device.memory_bytes * FOREIGN_TOLERANCE
        self.device = device
        self.approx = 1.0
        self.memory = device.memory_bytes - (0 if is_tolerable else foreign)
        self.slices: list[Slice] = []

    def copy(self) -> DeviceCapacity:
        """An independent copy in the same state."""
        twin = DeviceCapacity.__new__(DeviceCapacity)
        twin.device = self.device
        twin.approx = self.approx
        twin.memory = self.memory
        twin.slices = self.slices[:]
        return twin

    @property
    def share(self) -> Fraction:
        """The exact share that is free; below 0 where more is held than there is."""
        return 1 - sum((slice_.fraction for slice_ in self.slices), Fraction(0))

    def allocate(self, slice_: Slice) -> None:
        """A slice is held from now on."""
        self.slices.append(slice_)
        self.approx -= as_float(slice_.fraction)
        self.memory -= slice_.memory_bytes

    def release(self, slice_: Slice) -> None:
        """A slice is held no longer. Raises ValueError when it was not held."""
        self.slices.remove(slice_)
        self.approx += as_float(slice_.fraction)
        self.memory += slice_.memory_bytes

    def holds(self, share: Fraction, kept: Fraction | int) -> bool:
        """Whether it could give `share` now and still have `kept` for others."""
        wanted = share + kept if kept else share
        spare = self.approx - as_float(wanted)
        if spare < -CLOSE or bytes_of(wanted, self.device) > self.memory:
            return False
        return spare > CLOSE or wanted <= self.share

    def uuids(self) -> set[str]:
        """The MIG instances that are held."""
        return {slice_.uuid for slice_ in self.slices if slice_.profile}

    def load(self) -> dict[int, Fraction]:
        """How many slices' worth of a core is granted on each core."""
        load: dict[int, Fraction] = {}
        for slice_ in self.slices:
            for core in slice_.cores:
                each = slice_.fraction * len(self.device.cores) / len(slice_.cores)
                load[core] = load.get(core, Fraction(0)) + each
        return load

    def quietest_cores(self, count: int) -> tuple[int, ...]:
        """The `count` cores with the least granted on them, ascending; a slice smaller
        than a core shares a core.
        """
        load = self.load()
        quietest_first = sorted(
            self.device.cores, key=lambda core: (load.get(core, 0), core)
        )
        return tuple(sorted(quietest_first[:count]))


def as_float(share: Fraction) -> float:
    """A share as a float, faster than `float` does it."""
    return share.numerator / share.denominator


def bytes_of(share: Fraction, device: Device) -> int:
    """That share of a device's memory, rounded down."""
    return share.numerator * device.memory_bytes // share.denominator
