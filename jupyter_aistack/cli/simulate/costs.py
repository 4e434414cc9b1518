"""What starting, loading and moving take. Every figure is an option, and says where it
comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds and bytes per second.

    Attributes:
        checkpoint_seconds, checkpoint_rate: suspending GPU state to host memory with the
            driver's own checkpoint: fixed part, and bytes per second on each GPU.
            Fitted to two measurements on an H100 PCIe with driver 580 (README of
            shayonj/gpusched: 1,442 MB in 609 ms, 3,584 MB in 1,319 ms).
        restore_seconds, restore_rate: bringing it back (same source: 427 and 832 ms).
        start_seconds: least and most that starting a container takes. An assumption.
        load_rate: bytes per second at which state is read from shared storage
            (NotebookOS's figure for batch jobs).
        overhead_bytes, overhead_share: what a process needs on a GPU beside its state:
            its CUDA context, and a margin, because a restore that runs out of memory
            loses the kernel (NVIDIA/cuda-checkpoint#44).
    """

    checkpoint_seconds: float = 0.13
    checkpoint_rate: float = 3.0 * GB
    restore_seconds: float = 0.15
    restore_rate: float = 5.3 * GB
    start_seconds: tuple[float, float] = (20.0, 60.0)
    load_rate: float = 0.25 * GB
    overhead_bytes: float = 0.5 * GB
    overhead_share: float = 0.05

    def checkpoint(self, size: float) -> float:
        """Seconds to suspend `size` bytes of each GPU; those of one session are copied
        side by side.
        """
        return self.checkpoint_seconds + size / self.checkpoint_rate

    def restore(self, size: float) -> float:
        """Seconds to bring `size` bytes back to each GPU."""
        return self.restore_seconds + size / self.restore_rate

    def load(self, size: float) -> float:
        """Seconds to read a state of `size` bytes from shared storage."""
        return size / self.load_rate

    def budget(self, size: float) -> float:
        """Bytes of a GPU to be kept for a state of `size` bytes."""
        return size * (1 + self.overhead_share) + self.overhead_bytes
