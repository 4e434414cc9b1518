"""Everything this process has registered with :func:`~.offload.offloadable`, moved as
one when its lease is parked.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection

from jupyter_aistack.exceptions import LeaseError

from .tensor_state import Offload, TransferResult

_live: weakref.WeakSet[Offload] = weakref.WeakSet()
_out: list[Offload] = []
"""What :func:`move_out` has moved, in that order. Held here: one that nobody refers to
must come back all the same.
"""

KINDS = frozenset({"cuda"})


def remember(offload: Offload) -> Offload:
    """Have `offload` moved with the others for as long as somebody refers to it."""
    _live.add(offload)
    return offload


def registered(kinds: Collection[str] = KINDS) -> list[Offload]:
    """The live registrations for devices of these kinds (``cuda``, ``cpu``)."""
    return [one for one in _live if one.device.kind in kinds]


def registered_bytes(kinds: Collection[str] = KINDS) -> int:
    """What would move now; memory that two registrations share counts once."""
    sizes: dict[int, int] = {}
    for one in registered(kinds):
        sizes.update(one.sizes())
    return sum(sizes.values())


def is_out() -> bool:
    """Whether something is out that :func:`move_in` would bring back."""
    return bool(_out)


def move_out(kinds: Collection[str] = KINDS) -> TransferResult:
    """Move all registrations out, or none.

    One that its user has moved out already is left to them. Raises `LeaseError` as
    `Offload.suspend` does; all is back in place then.
    """
    begin = time.perf_counter()
    moved = []
    try:
        for one in registered(kinds):
            if not one.is_suspended:
                moved.append(one.suspend())
                _out.append(one)
    except LeaseError:
        move_in()
        raise
    return _together(moved, begin)


def move_in() -> TransferResult:
    """Bring back what :func:`move_out` moved, the last one first. Raises `LeaseError`;
    the rest may be tried again.
    """
    begin = time.perf_counter()
    moved = []
    while _out:
        moved.append(_out[-1].resume())
        _out.pop()
    return _together(moved, begin)


def _together(moved: list[TransferResult], begin: float) -> TransferResult:
    return TransferResult(
        storages=sum(one.storages for one in moved),
        size_bytes=sum(one.size_bytes for one in moved),
        seconds=time.perf_counter() - begin,
        trimmed_bytes=sum(one.trimmed_bytes for one in moved),
    )
