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
    """

    __slots__ = ("approx", "device", "memory", "pieces")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.approx = 1.0
        foreign = device.foreign_memory_bytes
        self.memory = device.memory_bytes - (
            foreign if foreign > device.memory_bytes * FOREIGN_TOLERANCE else 0
        )
        self.pieces: list[Slice] = []

    def copy(self) -> DeviceCapacity:
        twin = DeviceCapacity.__new__(DeviceCapacity)
        twin.device = self.device
        twin.approx = self.approx
        twin.memory = self.memory
        twin.pieces = self.pieces[:]
        return twin

    @property
    def share(self) -> Fraction:
        """The exact share that is free; below 0 where more is spoken for than there
        is.
        """
        return 1 - sum((piece.fraction for piece in self.pieces), Fraction(0))

    def take(self, piece: Slice) -> None:
        self.pieces.append(piece)
        self.approx -= as_float(piece.fraction)
        self.memory -= piece.memory_bytes

    def give(self, piece: Slice) -> None:
        """Raises ValueError when it was not taken."""
        self.pieces.remove(piece)
        self.approx += as_float(piece.fraction)
        self.memory += piece.memory_bytes

    def holds(self, share: Fraction, kept: Fraction | int) -> bool:
        """Whether it could give `share` now and still have `kept` for others."""
        wanted = share + kept if kept else share
        spare = self.approx - as_float(wanted)
        if spare < -CLOSE or bytes_of(wanted, self.device) > self.memory:
            return False
        return spare > CLOSE or wanted <= self.share

    def uuids(self) -> set[str]:
        """The MIG instances that are held."""
        return {piece.uuid for piece in self.pieces if piece.profile}

    def load(self) -> dict[int, Fraction]:
        """How many slices' worth of a core is granted on each core."""
        load: dict[int, Fraction] = {}
        for piece in self.pieces:
            for core in piece.cores:
                each = piece.fraction * len(self.device.cores) / len(piece.cores)
                load[core] = load.get(core, Fraction(0)) + each
        return load


def as_float(share: Fraction) -> float:
    """A share as a float, faster than `float` does it."""
    return share.numerator / share.denominator


def bytes_of(share: Fraction, device: Device) -> int:
    """That share of a device's memory, rounded down."""
    return share.numerator * device.memory_bytes // share.denominator
