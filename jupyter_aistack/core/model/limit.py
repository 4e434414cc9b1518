"""What the holder of a lease with a ceiling may use now: its guarantee, and of what
nobody has leased a part up to its ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from .device import Slice

LOWERED_GRACE_SECONDS = 60.0
"""How long memory above a limit that was lowered is left alone: time to free it."""


@dataclass(frozen=True, kw_only=True)
class SliceLimit:
    """What may be used of one slice now.

    Attributes:
        device_id: the device of the slice.
        fraction: the share of the device, from what was granted to the ceiling.
        memory_bytes: the same of its memory.
        cores: ids of the CPU cores; empty elsewhere.
        lowered_at: when the memory was lowered, in seconds since the epoch; None where it
            has not been since it was raised.
        lowered_from_bytes: what it was before; 0 where it was not lowered.
    """

    device_id: str
    fraction: Fraction
    memory_bytes: int
    cores: tuple[int, ...] = ()
    lowered_at: float | None = None
    lowered_from_bytes: int = 0

    def grace_left(self, now: float) -> float:
        """For how long what was used before it was lowered is left alone still, in
        seconds; 0 for no longer. A clock that is set back takes nothing of it.
        """
        if self.lowered_at is None:
            return 0.0
        passed = max(0.0, now - self.lowered_at)
        return max(0.0, LOWERED_GRACE_SECONDS - passed)

    def tolerated_bytes(self, now: float) -> int:
        """Bytes that may be held now: for a while those from before it was lowered."""
        if self.grace_left(now):
            return max(self.memory_bytes, self.lowered_from_bytes)
        return self.memory_bytes

    def same_amounts(self, other: SliceLimit) -> bool:
        """Whether both allow the same, whenever that came to be."""
        return self.without_history() == other.without_history()

    def without_history(self) -> SliceLimit:
        """What it allows, and nothing of what was before."""
        return replace(self, lowered_at=None, lowered_from_bytes=0)

    def after_pause(self, seconds: float) -> SliceLimit:
        """The same, after seconds in which nobody could free anything."""
        if self.lowered_at is None:
            return self
        return replace(self, lowered_at=self.lowered_at + seconds)

    def after(self, before: SliceLimit | None, now: float) -> SliceLimit:
        """This limit in place of `before`, with what is left alone for a while."""
        if before is None or self.memory_bytes > before.memory_bytes:
            return self
        tolerated = before.tolerated_bytes(now)
        if self.memory_bytes < before.memory_bytes:
            return replace(self, lowered_at=now, lowered_from_bytes=tolerated)
        return replace(
            self,
            lowered_at=before.lowered_at,
            lowered_from_bytes=before.lowered_from_bytes,
        )


Limits = tuple[SliceLimit, ...]
"""One for each slice that has a ceiling."""


def limited(slice_: Slice, limits: Limits) -> Slice:
    """The slice as large as it may be used now."""
    for limit in limits:
        if limit.device_id == slice_.device_id:
            return replace(
                slice_,
                fraction=limit.fraction,
                memory_bytes=limit.memory_bytes,
                cores=limit.cores,
            )
    return slice_
