"""Move what is registered to host memory, and back to where it was.

What moves are storages, each once however many tensors share it. A storage object
stays, emptied, and is filled again: views, gradients' graphs and whoever else refers to
it see the same memory afterwards. Meanwhile the tensors on it stand on the host copy,
so that who uses one too early gets a value or an error of torch, not a crash.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.core.suspend.model import host_capacity
from jupyter_aistack.exceptions import LeaseError

from .cuda import Device
from .host_arena import Arena, StorageLocation
from .tensors import check, has_others, named_tensors, storage_key, tensors_on, why_not

_one_at_a_time = threading.RLock()
"""Over all registrations: two may share a model."""


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What one move came to.

    Attributes:
        storages: how many there were; tensors that share one count once.
        size_bytes: what they hold together; 0 when there was nothing to do.
        seconds: how long the move took, trimming included.
        trimmed_bytes: what the device had cached for nothing, given back beside it.
    """

    storages: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    trimmed_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _Parked:
    """One storage that is out: its object, emptied; its copy; and the tensors that
    stand on the copy meanwhile.
    """

    name: str
    storage: Any
    place: StorageLocation
    tensors: tuple[tuple[Any, int], ...]
    """Each with its offset in the storage, in elements."""


class Offload:
    """Objects whose tensors leave the device when told to, and come back. Made by
    :func:`~.offload.offloadable`.

    As a context manager it brings them back at the end, and lets go of the host memory.
    Safe to use from several
    threads: what is asked twice is done once.
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
        with _one_at_a_time:
            on_device = (
                t
                for _, t in named_tensors(self.objects)
                if t.device.type == self.device.kind
            )
            plain = ((storage_key(tensor), tensor) for tensor in on_device)
            return {
                key: tensor.untyped_storage().nbytes()
                for key, tensor in plain
                if key is not None
            }

    def trim(self) -> int:
        """Give back what the device has cached but nothing lives in; the bytes given
        back.
        """
        with _one_at_a_time:
            return self.device.trim()

    def suspend(self) -> TransferResult:
        """Move everything out; what is out already stays out.

        Raises:
            LeaseError: something cannot be moved, which is named, or the host has no
                room. Nothing has moved then.
        """
        with _one_at_a_time:
            if self._parked:
                return TransferResult()
            begin = time.perf_counter()
            named = list(named_tensors(self.objects))
            found = self._storages(named)
            if not found:
                return TransferResult(
                    trimmed_bytes=self.device.trim(),
                    seconds=time.perf_counter() - begin,
                )
            self._parked = self._copy_out(found, [tensor for _, tensor in named])
            self._empty()
            trimmed = max(0, self.device.give_back() - _size(self._parked))
            return self._moved(begin, self._parked, trimmed)

    def resume(self) -> TransferResult:
        """Bring everything back; what is here already stays.

        Raises:
            LeaseError: the device has no room. All is still out then, nothing is lost,
                and it may be tried again.
        """
        with _one_at_a_time:
            if not self._parked:
                return TransferResult()
            begin = time.perf_counter()
            parked = self._parked
            self._make_room(parked)
            self.device.copy(
                (_bytes_of(one.storage), one.place.bytes) for one in parked
            )
            self.device.synchronize()
            for one in parked:
                _refer(one, to_host=False)
            self._parked = ()
            if not self.keep_host:
                self._arena.drop()
            return self._moved(begin, parked, 0)

    @contextmanager
    def suspended(self) -> Iterator[TransferResult]:
        """Everything is out inside the ``with`` block."""
        moved = self.suspend()
        try:
            yield moved
        finally:
            self.resume()

    def close(self) -> None:
        """Bring everything back and let go of the host memory."""
        with _one_at_a_time:
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

    def _storages(self, named: list[tuple[str, Any]]) -> dict[int, tuple[str, Any]]:
        """The storages on the device, by address, each with the name of a tensor on
        it.
        """
        refusal = self.device.why_not()
        found = dict[int, tuple[str, Any]]()
        if refusal:
            raise LeaseError(f"cannot suspend: {refusal}")
        for name, tensor in named:
            if tensor.device.type != self.device.kind:
                continue
            refusal = why_not(tensor)
            if refusal:
                raise LeaseError(f"cannot suspend {name}: {refusal}", name=name)
            storage = tensor.untyped_storage()
            if storage.nbytes():
                found.setdefault(storage._cdata, (name, storage))
        return found

    def _copy_out(
        self, found: dict[int, tuple[str, Any]], tensors: list[Any]
    ) -> tuple[_Parked, ...]:
        """Copies of all storages, complete; the originals are as they were."""
        sizes = [storage.nbytes() for _, storage in found.values()]
        self._admit(sizes)
        try:
            places = self._arena.place(sizes)
        except (RuntimeError, MemoryError) as error:
            self._arena.drop()
            raise LeaseError(
                f"cannot suspend: the host gave no {format_bytes(sum(sizes))}: {error}"
            ) from error
        self.device.synchronize()
        moves = zip(found.values(), places, strict=True)
        self.device.copy(
            (place.bytes, _bytes_of(storage)) for (_, storage), place in moves
        )
        standing = self._standing(found, tensors)  # while a GPU copies
        self.device.synchronize()
        return tuple(
            _Parked(
                name=name, storage=storage, place=place, tensors=standing.get(key, ())
            )
            for (key, (name, storage)), place in zip(found.items(), places, strict=True)
        )

    def _standing(
        self, found: dict[int, tuple[str, Any]], tensors: list[Any]
    ) -> dict[int, tuple[tuple[Any, int], ...]]:
        """Who stands on each storage, those that nobody registered included; garbage is
        dropped where it may matter.
        """
        standing = _by_storage(tensors)
        has_views = any(
            has_others(storage, len(standing[key]))
            for key, (_, storage) in found.items()
        )
        if has_views or self.device.has_more(
            [storage.nbytes() for _, storage in found.values()]
        ):
            gc.collect()  # before the search, which would take garbage for views
        return (
            _by_storage([*tensors, *tensors_on(set(found))]) if has_views else standing
        )

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

    def _admit(self, sizes: list[int]) -> None:
        room = host_capacity(
            _available_bytes(),
            parked_bytes=self._arena.size_bytes,
            share=SuspendPolicy().host_share,
        )
        missing = self._arena.missing_bytes(sizes)
        if missing > room:
            raise LeaseError(
                f"cannot suspend: {format_bytes(sum(sizes))} would not fit into the {format_bytes(room)} of host "
                "memory that may be used for it",
                missing_bytes=missing,
                room_bytes=room,
            )

    # -- back --------------------------------------------------------------------------

    def _make_room(self, parked: tuple[_Parked, ...]) -> None:
        """Allocate everything on the device before a byte is copied; all or nothing."""
        for done, one in enumerate(parked):
            try:
                one.storage.resize_(one.place.size_bytes)
            except (RuntimeError, MemoryError) as error:
                for other in parked[: done + 1]:
                    other.storage.resize_(0)
                self.device.give_back()
                raise LeaseError(
                    f"cannot resume {one.name}: the device has no room for {format_bytes(_size(parked))}; "
                    "free some of it and try again",
                    name=one.name,
                ) from error
        self.device.adopt([one.storage for one in parked])

    def _moved(
        self, begin: float, parked: tuple[_Parked, ...], trimmed: int
    ) -> TransferResult:
        seconds = time.perf_counter() - begin
        return TransferResult(
            storages=len(parked),
            size_bytes=_size(parked),
            seconds=seconds,
            trimmed_bytes=trimmed,
        )


def _by_storage(tensors: list[Any]) -> dict[int, tuple[tuple[Any, int], ...]]:
    """The tensors on each storage, each with its offset there; one that is given twice
    comes once.
    """
    found: dict[int | None, dict[int, tuple[Any, int]]] = {}
    for tensor in tensors:
        found.setdefault(storage_key(tensor), {})[id(tensor)] = (
            tensor,
            tensor.storage_offset(),
        )
    return {
        key: tuple(standing.values())
        for key, standing in found.items()
        if key is not None
    }


def _refer(parked: _Parked, *, to_host: bool) -> None:
    """Let the tensors stand on the host copy, or on their storage again, unless they
    have been given other data.
    """
    host = parked.place.buffer.untyped_storage()
    source, target = (parked.storage, host) if to_host else (host, parked.storage)
    for tensor, offset in parked.tensors:
        if storage_key(tensor) == source._cdata:
            shift = parked.place.offset // tensor.element_size() if to_host else 0
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
    return sum(one.place.size_bytes for one in parked)


def _available_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
