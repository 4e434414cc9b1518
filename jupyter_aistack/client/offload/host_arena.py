"""Host memory for what is moved out: a few large blocks, since pinning many small
blocks takes most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .cuda import Device

BLOCK_BYTES = 64 << 20
ALIGNMENT = 64
"""At least the size of an element of any type, so that a tensor of it may begin
there.
"""


@dataclass(frozen=True)
class HostBlock:
    """A stretch of host memory, filled from its beginning."""

    buffer: Any


class _Plan(NamedTuple):
    """Where storages go: for each its block and the offset in it; and the sizes of the
    blocks that are to be made for that, after those that are there.
    """

    places: list[tuple[int, int]]
    new_blocks: list[int]


@dataclass(frozen=True, kw_only=True)
class StorageLocation:
    """Where one storage lies in host memory: `size_bytes` from byte `offset` of
    `buffer`.
    """

    buffer: Any
    offset: int
    size_bytes: int

    @property
    def bytes(self) -> Any:
        return self.buffer[self.offset : self.offset + self.size_bytes]


@dataclass
class Arena:
    """The host memory of one registration. Blocks are kept from one time to the next
    until dropped.

    A block is as large as the device's host memory comes: all of it is counted, and
    filled.
    """

    device: Device
    blocks: list[HostBlock] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(len(block.buffer) for block in self.blocks)

    def missing_bytes(self, sizes: Sequence[int]) -> int:
        """How much more host memory it takes to place storages of these sizes."""
        return sum(self._plan(sizes).new_blocks)

    def place(self, sizes: Sequence[int]) -> list[StorageLocation]:
        """Places for storages of these sizes, in that order; whatever lay there before
        is forgotten.

        Raises:
            RuntimeError: from torch, when the host has no memory for it.
        """
        plan = self._plan(sizes)
        for size in plan.new_blocks:
            self.blocks.append(HostBlock(self.device.host_buffer(size)))
        return [
            StorageLocation(
                buffer=self.blocks[block].buffer, offset=offset, size_bytes=size
            )
            for size, (block, offset) in zip(sizes, plan.places, strict=True)
        ]

    def _plan(self, sizes: Sequence[int]) -> _Plan:
        """Where storages of these sizes go, the largest first, so that the small ones
        fill what those leave of their blocks.
        """
        capacities = [len(block.buffer) for block in self.blocks]
        used = [0] * len(capacities)
        places = [(0, 0)] * len(sizes)
        rest = sum(map(_aligned, sizes))
        for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
            size = _aligned(sizes[index])
            fitting = (
                block
                for block, capacity in enumerate(capacities)
                if used[block] + size <= capacity
            )
            block = next(fitting, len(capacities))
            if block == len(capacities):
                least = max(size, min(rest, BLOCK_BYTES))
                capacities.append(self.device.host_block_bytes(least))
                used.append(0)
            places[index] = (block, used[block])
            used[block] += size
            rest -= size
        return _Plan(places, capacities[len(self.blocks) :])

    def drop(self) -> None:
        """Let the host have its memory back."""
        self.blocks.clear()
        self.device.give_back_host()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
