"""Move what is registered to host memory, and back to where it was.

What moves are storages, each once however many tensors share it. A storage object
stays, emptied, and is filled again: views, gradients' graphs and other references see
the same memory afterwards. Meanwhile the tensors on it stand on the host copy, so that a
use that comes too early gets a value or an error of torch, not a crash.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.core.suspend.host_memory import from_environment
from jupyter_aistack.core.suspend.model import host_capacity
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.system.memory import available_bytes

from .cuda import Device
from .host_arena import Arena, StorageLocation
from .tensors import check, has_others, named_tensors, storage_key, tensors_on, why_not

_transfer_lock = threading.RLock()
"""Over all registrations: two may share a model."""


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer came to.

    Attributes:
        storages: how many there were; a storage that tensors share counts once.
        size_bytes: what they hold together; 0 when there was nothing to do.
        seconds: how long the move took, trimming included.
        trimmed_bytes: what the device had cached for nothing, given back beside it.
    """

    storages: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    trimmed_bytes: int = 0


_Offset = tuple[Any, int]
"""A tensor, and where it begins in its storage, in elements."""


class _Named(NamedTuple):
    """A storage, and the name of a tensor on it that the user knows."""

    name: str
    storage: Any


@dataclass(frozen=True, kw_only=True)
class _Parked:
    """One storage that is out: its object, emptied; its copy; and the tensors that
    stand on the copy meanwhile.
    """

    name: str
    storage: Any
    location: StorageLocation
    tensors: tuple[_Offset, ...]


class Offload:
    """Objects whose tensors leave the device on `suspend`, and come back. Made by
    :func:`~.offload.offloadable`.

    As a context manager it brings them back at the end, and frees the host memory. Safe
    to use from several threads: what is asked twice is done once.
    """

    def __init__(
        self, objects: tuple[Any, ...], device: Device, *, keep_host: bool
    ) -> None:
        check(objects)
        self.objects = objects
        self.device = device
        self.keep_host = keep_host
        self._arena = Arena(device)
        self._parked: tuple[_Parked, ...] = ()
        # Where it is forgotten without `close`, its host memory must not stay pinned.
        weakref.finalize(self, self._arena.drop).atexit = False

    @property
    def is_suspended(self) -> bool:
        return bool(self._parked)

    @property
    def host_bytes(self) -> int:
        """Host memory it holds now."""
        return self._arena.size_bytes

    def sizes(self) -> dict[int, int]:
        """What it has on the device now: the bytes of each storage, by the storage's
        address.
        """
        with _transfer_lock:
            sizes = {}
            for _, tensor in named_tensors(self.objects):
                if tensor.device.type != self.device.kind:
                    continue
                key = storage_key(tensor)
                if key is not None:
                    sizes[key] = tensor.untyped_storage().nbytes()
            return sizes

    def trim(self) -> int:
        """Give back what the device has cached but nothing lives in; the bytes given
        back.
        """
        with _transfer_lock:
            return self.device.trim()

    def suspend(self) -> TransferResult:
        """Move everything out; what is out already stays out.

        Raises:
            LeaseError: something cannot be moved, which is named, or the host has no
                capacity. Nothing has moved then.
        """
        with _transfer_lock:
            if self._parked:
                return TransferResult()
            began_at = time.perf_counter()
            named = list(named_tensors(self.objects))
            storages = self._storages(named)
            if not storages:
                trimmed = self.device.trim()
                return _result(began_at, (), trimmed)

            self._parked = self._copy_out(storages, [tensor for _, tensor in named])
            self._empty()
            trimmed = self.device.give_back() - _size(self._parked)
            return _result(began_at, self._parked, max(0, trimmed))

    def resume(self) -> TransferResult:
        """Bring everything back; what is here already stays.

        Raises:
            LeaseError: the device has no capacity. All is still out then, nothing is
                lost, and it may be tried again.
        """
        with _transfer_lock:
            if not self._parked:
                return TransferResult()
            result = self._copy_back()
            # Nothing refers to the host copies any more: only so can they be freed.
            if not self.keep_host:
                self._arena.drop()
            return result

    @contextmanager
    def suspended(self) -> Iterator[TransferResult]:
        """Everything is out inside the ``with`` block."""
        moved = self.suspend()
        try:
            yield moved
        finally:
            self.resume()

    def close(self) -> None:
        """Bring everything back and free the host memory."""
        with _transfer_lock:
            self.resume()
            self._arena.drop()

    def __enter__(self) -> Offload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- out ---------------------------------------------------------------------------

    def _storages(self, named: list[tuple[str, Any]]) -> dict[int, _Named]:
        """The storages on the device, by address, each with the name of a tensor on
        it.
        """
        refusal = self.device.why_not()
        if refusal:
            raise LeaseError(f"cannot suspend: {refusal}")

        storages: dict[int, _Named] = {}
        for name, tensor in named:
            if tensor.device.type != self.device.kind:
                continue
            refusal = why_not(tensor)
            if refusal:
                raise LeaseError(f"cannot suspend {name}: {refusal}", name=name)
            storage = tensor.untyped_storage()
            if storage.nbytes():
                storages.setdefault(storage._cdata, _Named(name, storage))
        return storages

    def _copy_out(
        self, storages: dict[int, _Named], tensors: list[Any]
    ) -> tuple[_Parked, ...]:
        """Copies of all storages, complete; the originals are as they were."""
        locations = self._allocate(
            [each.storage.nbytes() for each in storages.values()]
        )
        self.device.synchronize()
        copies = zip(storages.values(), locations, strict=True)
        self.device.copy(
            (location.bytes, _bytes_of(each.storage)) for each, location in copies
        )
        # Searched for while a GPU copies.
        standing = self._tensors_by_storage(storages, tensors)
        self.device.synchronize()
        return tuple(
            _Parked(
                name=each.name,
                storage=each.storage,
                location=location,
                tensors=standing.get(key, ()),
            )
            for (key, each), location in zip(storages.items(), locations, strict=True)
        )

    def _allocate(self, sizes: list[int]) -> list[StorageLocation]:
        """Host memory for storages of these sizes."""
        self._check_host_memory(sizes)
        try:
            return self._arena.place(sizes)
        except (RuntimeError, MemoryError) as error:
            self._arena.drop()
            raise LeaseError(
                f"cannot suspend: the host gave no {format_bytes(sum(sizes))}: {error}"
            ) from error

    def _tensors_by_storage(
        self, storages: dict[int, _Named], tensors: list[Any]
    ) -> dict[int, tuple[_Offset, ...]]:
        """The tensors on each storage, unregistered views included; garbage
        is dropped where it may matter.
        """
        registered = _by_storage(tensors)
        has_views = any(
            has_others(each.storage, len(registered[key]))
            for key, each in storages.items()
        )
        sizes = [each.storage.nbytes() for each in storages.values()]
        if has_views or self.device.has_more(sizes):
            gc.collect()  # before the search, which would take garbage for views
        if not has_views:
            return registered
        return _by_storage([*tensors, *tensors_on(set(storages))])

    def _empty(self) -> None:
        """Stand all tensors on the copies and free the originals; all or nothing."""
        for parked in self._parked:
            try:
                _refer(parked, to_host=True)
                parked.storage.resize_(0)
            except RuntimeError as error:
                self.resume()
                raise LeaseError(
                    f"cannot suspend {parked.name}: {error}", name=parked.name
                ) from error

    def _check_host_memory(self, sizes: list[int]) -> None:
        limits = from_environment(os.environ)
        capacity = host_capacity(
            available_bytes(limits.host_bytes),
            suspended_bytes=self._arena.size_bytes,
            share=limits.host_share,
        )
        missing = self._arena.missing_bytes(sizes)
        if missing > capacity:
            raise LeaseError(
                f"cannot suspend: {format_bytes(sum(sizes))} would not fit into the {format_bytes(capacity)} of host "
                "memory that may be used for it",
                missing_bytes=missing,
                room_bytes=capacity,
            )

    # -- back --------------------------------------------------------------------------

    def _copy_back(self) -> TransferResult:
        began_at = time.perf_counter()
        all_parked = self._parked
        self._allocate_on_device(all_parked)
        self.device.copy(
            (_bytes_of(parked.storage), parked.location.bytes) for parked in all_parked
        )
        # Complete before a tensor stands on it again.
        self.device.synchronize()
        for parked in all_parked:
            _refer(parked, to_host=False)
        self._parked = ()
        return _result(began_at, all_parked, 0)

    def _allocate_on_device(self, all_parked: tuple[_Parked, ...]) -> None:
        """Allocate everything before a byte is copied; all or nothing."""
        for count, parked in enumerate(all_parked, 1):
            try:
                parked.storage.resize_(parked.location.size_bytes)
            except (RuntimeError, MemoryError) as error:
                for other in all_parked[:count]:
                    other.storage.resize_(0)
                self.device.give_back()
                raise LeaseError(
                    f"cannot resume {parked.name}: the device has too little free memory for "
                    f"{format_bytes(_size(all_parked))}; free some of it and try again",
                    name=parked.name,
                ) from error
        self.device.adopt([parked.storage for parked in all_parked])


def _result(
    began_at: float, all_parked: tuple[_Parked, ...], trimmed_bytes: int
) -> TransferResult:
    return TransferResult(
        storages=len(all_parked),
        size_bytes=_size(all_parked),
        seconds=time.perf_counter() - began_at,
        trimmed_bytes=trimmed_bytes,
    )


def _by_storage(tensors: list[Any]) -> dict[int, tuple[_Offset, ...]]:
    """The tensors on each storage; a tensor that is given twice comes once."""
    by_key: dict[int, dict[int, _Offset]] = {}
    for tensor in tensors:
        key = storage_key(tensor)
        if key is not None:
            offset = (tensor, tensor.storage_offset())
            by_key.setdefault(key, {})[id(tensor)] = offset
    return {key: tuple(offsets.values()) for key, offsets in by_key.items()}


def _refer(parked: _Parked, *, to_host: bool) -> None:
    """Let the tensors stand on the host copy, or on their storage again, unless they
    have been given other data.
    """
    host = parked.location.buffer.untyped_storage()
    source, target = (parked.storage, host) if to_host else (host, parked.storage)
    for tensor, offset in parked.tensors:
        if storage_key(tensor) == source._cdata:
            shift = parked.location.offset // tensor.element_size() if to_host else 0
            tensor.data = _like(tensor, target, offset + shift)


def _like(tensor: Any, storage: Any, offset: int) -> Any:
    import torch

    with torch.no_grad():
        empty = torch.empty(0, dtype=tensor.dtype, device=storage.device)
        data = empty.set_(storage, offset, tensor.size(), tensor.stride())
        data = data.conj() if tensor.is_conj() else data
        return torch._neg_view(data) if tensor.is_neg() else data


def _bytes_of(storage: Any) -> Any:
    import torch

    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _size(parked: tuple[_Parked, ...]) -> int:
    return sum(each.location.size_bytes for each in parked)
