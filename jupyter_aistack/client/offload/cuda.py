"""What a device whose memory is given back can do: CUDA, and the CPU as its double for
trying it out.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from jupyter_aistack.exceptions import InvalidRequest

from .huge_pages import prefer_large, return_unused
from .tensors import alive

Pair: TypeAlias = tuple[Any, Any]
"""Two tensors of bytes, equally long."""
BLOCK_BYTES = 512
"""torch's allocator on a GPU gives out multiples of it (c10/cuda/CUDACachingAllocator,
kMinBlockSize).
"""
WORTH_A_SEARCH = 64
"""Garbage is looked for, which takes 0.1 to 0.5 s in a notebook, when it could be 1/64
of what moves, or more.
"""


class Device(Protocol):
    """A kind of device, and the host memory that copies to and from it fastest."""

    kind: str

    def synchronize(self) -> None:
        """Return when all work given to it is done."""

    def copy(self, pairs: Iterable[Pair]) -> None:
        """Begin to copy, each pair's second into its first; all are complete after
        `synchronize`.
        """

    def adopt(self, storages: Sequence[Any]) -> None:
        """Storages that have been allocated just now and will be filled: make that
        quick.
        """

    def has_more(self, sizes: Sequence[int]) -> bool:
        """Whether it holds much beside storages of these sizes, in which garbage may
        be.
        """

    def trim(self) -> int:
        """Drop garbage and give back memory that nothing lives in; the
        bytes given back.
        """

    def give_back(self) -> int:
        """Give back memory that nothing lives in, without looking for garbage; the
        bytes given back.
        """

    def host_block_bytes(self, size_bytes: int) -> int:
        """How much host memory is really taken for a buffer of this size."""

    def host_buffer(self, size_bytes: int) -> Any:
        """Host memory, as a tensor of bytes."""

    def give_back_host(self) -> None:
        """Let the system have host memory that nothing refers to any more."""

    def why_not(self) -> str:
        """Why nothing of this process may be moved now; empty when it may."""


class Cuda:
    """All GPUs that this process sees; nothing here starts CUDA."""

    kind = "cuda"

    def synchronize(self) -> None:
        import torch

        if _has_started():
            for index in range(torch.cuda.device_count()):
                torch.cuda.synchronize(index)

    def copy(self, pairs: Iterable[Pair]) -> None:
        for target, source in pairs:
            target.copy_(source, non_blocking=True)

    def adopt(self, storages: Sequence[Any]) -> None:
        """Nothing to do: a GPU's memory is there once it is allocated."""

    def has_more(self, sizes: Sequence[int]) -> bool:
        import torch

        known = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)
        held = sum(
            torch.cuda.memory_allocated(index)
            for index in range(torch.cuda.device_count())
        )
        return (held - known) * WORTH_A_SEARCH > known

    def trim(self) -> int:
        gc.collect()
        return self.give_back()

    def give_back(self) -> int:
        import torch

        if not _has_started():
            return 0
        before = self._reserved()
        torch.cuda.empty_cache()
        return before - self._reserved()

    def _reserved(self) -> int:
        import torch

        return sum(
            torch.cuda.memory_reserved(index)
            for index in range(torch.cuda.device_count())
        )

    def host_buffer(self, size_bytes: int) -> Any:
        import torch

        if _has_started():
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
        return _pageable(size_bytes)

    def host_block_bytes(self, size_bytes: int) -> int:
        """torch's allocator of pinned memory rounds up to a power of two
        (c10/core/CachingHostAllocator.h, `allocate`).
        """
        return next_power_of_two(size_bytes) if _has_started() else size_bytes

    def give_back_host(self) -> None:
        """That allocator keeps what is freed until it is told to let go."""
        import torch

        if not _has_started():
            return_unused()
            return
        empty = getattr(torch.accelerator, "empty_host_cache", None)
        empty = empty or getattr(torch._C, "_host_emptyCache", None)
        if empty is not None:
            empty()

    def why_not(self) -> str:
        import torch

        if alive(torch.cuda.CUDAGraph):
            return "a CUDA graph lives in this process and holds addresses; delete it first"
        return ""


class Cpu:
    """The CPU as a stand-in for a GPU: its tensors move to other memory of the CPU, and
    theirs is really freed.
    """

    kind = "cpu"

    def synchronize(self) -> None:
        """Nothing else runs beside the caller."""

    def copy(self, pairs: Iterable[Pair]) -> None:
        for target, source in pairs:
            target.copy_(source)

    def adopt(self, storages: Sequence[Any]) -> None:
        for storage in storages:
            prefer_large(storage.data_ptr(), storage.nbytes())

    def has_more(self, sizes: Sequence[int]) -> bool:
        """False: no process waits for what garbage holds of the host's memory."""
        return False

    def trim(self) -> int:
        gc.collect()
        return self.give_back()

    def give_back(self) -> int:
        """How much is unknown: the system does not count it."""
        return_unused()
        return 0

    def host_buffer(self, size_bytes: int) -> Any:
        return _pageable(size_bytes)

    def host_block_bytes(self, size_bytes: int) -> int:
        return size_bytes

    def give_back_host(self) -> None:
        return_unused()

    def why_not(self) -> str:
        return ""


def device_named(kind: str) -> Device:
    """The device of that name.

    Raises:
        InvalidRequest: when there is none.
    """
    devices: dict[str, Device] = {"cuda": Cuda(), "cpu": Cpu()}
    if kind not in devices:
        raise InvalidRequest(
            f"device: {kind!r} is not known; write cuda, or cpu to try it out",
            field="device",
        )
    return devices[kind]


def next_power_of_two(size_bytes: int) -> int:
    """The smallest power of two that is at least so large."""
    return 1 << max(0, size_bytes - 1).bit_length()


def _has_started() -> bool:
    """Whether CUDA runs in this process; asking does not start it."""
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _pageable(size_bytes: int) -> Any:
    import torch

    buffer = torch.empty(size_bytes, dtype=torch.uint8)
    prefer_large(buffer.data_ptr(), size_bytes)
    return buffer
