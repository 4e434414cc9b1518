"""What a device whose memory is given back can do: CUDA, and the CPU as its double for trying it out."""

from __future__ import annotations

import gc
from typing import Any, Protocol

from ..exceptions import InvalidRequest


class Device(Protocol):
    """A kind of device, and the host memory that copies to and from it fastest."""

    kind: str

    def synchronize(self) -> None:
        """Return when all work given to it is done."""

    def trim(self) -> int:
        """Drop what nobody refers to and give back memory that nothing lives in; the bytes given back."""

    def give_back(self) -> int:
        """Give back memory that nothing lives in, without looking for garbage; the bytes given back."""

    def host_buffer(self, size_bytes: int) -> Any:
        """Host memory, as a tensor of bytes."""

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

        return sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count()))

    def host_buffer(self, size_bytes: int) -> Any:
        import torch

        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=_has_started())

    def why_not(self) -> str:
        import torch

        if any(issubclass(type(thing), torch.cuda.CUDAGraph) for thing in gc.get_objects()):
            return "a CUDA graph lives in this process and holds addresses; delete it first"
        return ""


class Cpu:
    """The CPU as a stand-in for a GPU: its tensors move to other memory of the CPU, and theirs is really freed."""

    kind = "cpu"

    def synchronize(self) -> None:
        """Nothing runs beside the caller."""

    def trim(self) -> int:
        gc.collect()
        return 0

    def give_back(self) -> int:
        return 0

    def host_buffer(self, size_bytes: int) -> Any:
        import torch

        return torch.empty(size_bytes, dtype=torch.uint8)

    def why_not(self) -> str:
        return ""


def device_named(kind: str) -> Device:
    """The device of that name.

    Raises:
        InvalidRequest: when there is none.
    """
    devices: dict[str, Device] = {"cuda": Cuda(), "cpu": Cpu()}
    if kind not in devices:
        raise InvalidRequest(f"device: {kind!r} is not known; write cuda, or cpu to try it out", field="device")
    return devices[kind]


def _has_started() -> bool:
    """Whether CUDA runs in this process; asking does not start it."""
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
