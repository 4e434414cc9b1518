"""A device whose host memory comes as torch's pinned memory does: in powers of two, and
kept by the allocator when it is freed.
"""

from __future__ import annotations

import weakref
from typing import Any

from jupyter_aistack.client.offload.cuda import Cpu, next_power_of_two


class PinningCpu(Cpu):
    """The CPU, with an allocator of host memory that rounds up and caches
    (`CachingHostAllocator` of torch).

    Attributes:
        in_use: bytes of the blocks that something refers to.
        cached: bytes of those that were freed, and have not gone back to the system.
    """

    def __init__(self) -> None:
        self.in_use = 0
        self.cached = 0

    @property
    def taken(self) -> int:
        """What the host is short of."""
        return self.in_use + self.cached

    def host_block_bytes(self, size_bytes: int) -> int:
        return next_power_of_two(size_bytes)

    def host_buffer(self, size_bytes: int) -> Any:
        block_bytes = next_power_of_two(size_bytes)
        self.in_use += block_bytes
        self.cached -= min(self.cached, block_bytes)
        buffer = super().host_buffer(size_bytes)
        weakref.finalize(buffer, self._free, block_bytes).atexit = False
        return buffer

    def _free(self, block_bytes: int) -> None:
        self.in_use -= block_bytes
        self.cached += block_bytes

    def give_back_host(self) -> None:
        super().give_back_host()
        self.cached = 0
