"""Everything this process has registered with :func:`~.offload.offloadable`, moved
together when its lease is suspended.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection

from jupyter_aistack.exceptions import LeaseError

from .tensor_state import Offload, TransferResult

_live: weakref.WeakSet[Offload] = weakref.WeakSet()
_out: list[Offload] = []
"""What :func:`move_out` has moved, in that order. Held here: an object that is not
referred to any more must come back all the same.
"""

KINDS = frozenset({"cuda"})


def remember(offload: Offload) -> Offload:
    """Have `offload` moved with the others for as long as it is referred to."""
    _live.add(offload)
    return offload


def registered(kinds: Collection[str] = KINDS) -> list[Offload]:
    """The live registrations for devices of these kinds (``cuda``, ``cpu``)."""
    return [each for each in _live if each.device.kind in kinds]


def registered_bytes(kinds: Collection[str] = KINDS) -> int:
    """What would move now; memory that two registrations share counts once."""
    sizes: dict[int, int] = {}
    for offload in registered(kinds):
        sizes.update(offload.sizes())
    return sum(sizes.values())


def is_out() -> bool:
    """Whether something is out that :func:`move_in` would bring back."""
    return bool(_out)


def move_out(kinds: Collection[str] = KINDS) -> TransferResult:
    """Move all registrations out, or none.

    What its user has moved out already is left to them. Raises `LeaseError` as
    `Offload.suspend` does; all is back in place then.
    """
    began_at = time.perf_counter()
    moved = []
    try:
        for offload in registered(kinds):
            if not offload.is_suspended:
                moved.append(offload.suspend())
                _out.append(offload)
    except LeaseError:
        move_in()
        raise
    return _total(moved, began_at)


def move_in() -> TransferResult:
    """Bring back what :func:`move_out` moved, in reverse order. Raises `LeaseError`;
    the rest may be tried again.
    """
    began_at = time.perf_counter()
    moved = []
    while _out:
        moved.append(_out[-1].resume())
        _out.pop()
    return _total(moved, began_at)


def _total(moved: list[TransferResult], began_at: float) -> TransferResult:
    return TransferResult(
        storages=sum(each.storages for each in moved),
        size_bytes=sum(each.size_bytes for each in moved),
        seconds=time.perf_counter() - began_at,
        trimmed_bytes=sum(each.trimmed_bytes for each in moved),
    )
