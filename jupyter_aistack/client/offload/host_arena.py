"""Host memory for what is moved out: a few large pieces, since pinning many small ones
takes most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cuda import Device

PIECE_BYTES = 64 << 20
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
    """The host memory of one registration. Pieces are kept from one time to the next
    until dropped.
    """

    device: Device
    pieces: list[HostBlock] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(len(piece.buffer) for piece in self.pieces)

    def missing_bytes(self, sizes: Sequence[int]) -> int:
        """About how much more host memory it takes to place storages of these sizes."""
        return max(0, sum(map(_aligned, sizes)) - self.size_bytes)

    def place(self, sizes: Sequence[int]) -> list[StorageLocation]:
        """Places for storages of these sizes, in that order; whatever lay there before
        is forgotten.

        Raises:
            RuntimeError: from torch, when the host has no memory for it.
        """
        for piece in self.pieces:
            piece.used = 0
        rest = sum(map(_aligned, sizes))
        places = []
        for size in sizes:
            piece = self._piece(_aligned(size), rest)
            places.append(
                StorageLocation(buffer=piece.buffer, offset=piece.used, size_bytes=size)
            )
            piece.used += _aligned(size)
            rest -= _aligned(size)
        return places

    def _piece(self, size: int, rest: int) -> HostBlock:
        for piece in self.pieces:
            if piece.used + size <= len(piece.buffer):
                return piece
        self.pieces.append(
            HostBlock(self.device.host_buffer(max(size, min(rest, PIECE_BYTES))))
        )
        return self.pieces[-1]

    def drop(self) -> None:
        """Let the host have its memory back."""
        self.pieces.clear()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
