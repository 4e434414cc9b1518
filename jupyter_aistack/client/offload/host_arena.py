"""Host memory for what is moved out: a few large blocks, since pinning many small
blocks takes most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cuda import Device

BLOCK_BYTES = 64 << 20
ALIGNMENT = 64
"""At least the size of an element of any type, so that a tensor of it may begin
there.
"""


@dataclass
class HostBlock:
    """A stretch of host memory, filled from its beginning."""

    buffer: Any
    used: int = 0


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
    """

    device: Device
    blocks: list[HostBlock] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(len(block.buffer) for block in self.blocks)

    def missing_bytes(self, sizes: Sequence[int]) -> int:
        """About how much more host memory it takes to place storages of these sizes."""
        return max(0, sum(map(_aligned, sizes)) - self.size_bytes)

    def place(self, sizes: Sequence[int]) -> list[StorageLocation]:
        """Places for storages of these sizes, in that order; whatever lay there before
        is forgotten.

        Raises:
            RuntimeError: from torch, when the host has no memory for it.
        """
        for block in self.blocks:
            block.used = 0
        rest = sum(map(_aligned, sizes))
        locations = []
        for size in sizes:
            aligned = _aligned(size)
            block = self._block(aligned, rest)
            locations.append(
                StorageLocation(buffer=block.buffer, offset=block.used, size_bytes=size)
            )
            block.used += aligned
            rest -= aligned
        return locations

    def _block(self, size: int, rest: int) -> HostBlock:
        """A block with so many free bytes; a new block is made large enough for the `rest`."""
        for block in self.blocks:
            if block.used + size <= len(block.buffer):
                return block
        buffer = self.device.host_buffer(max(size, min(rest, BLOCK_BYTES)))
        block = HostBlock(buffer)
        self.blocks.append(block)
        return block

    def drop(self) -> None:
        """Let the host have its memory back."""
        self.blocks.clear()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
