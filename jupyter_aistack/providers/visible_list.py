"""Lists by which a runtime is shown some of its devices, ``0,2`` or ``GPU-8932f937``,
read as the runtimes read them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_ORDINAL = re.compile(r"\+?\d+")
_NAME = re.compile(r"(?:GPU|MIG)-", re.IGNORECASE)


def has_ordinals(text: str) -> bool:
    """Whether a list names devices by their number."""
    return _ORDINAL.match(text.strip()) is not None


def visible_positions(
    text: str, names: Sequence[Collection[str]], *, may_mix: bool = False
) -> tuple[int, ...]:
    """The positions of the devices that a list shows, in its order.

    An entry that is no device ends the list: those before it are shown, those behind it
    are not. So ``-1``, ``none`` and nothing at all show none. A device that is named
    twice makes the whole list invalid. A name may be cut short as long as it is the only
    one that begins so.

    Args:
        text: the list.
        names: what each device is called, in the order in which they are numbered.
        may_mix: numbers and names may stand in one list.
    """
    positions: list[int] = []
    is_first_ordinal = has_ordinals(text)
    for entry in (each.strip() for each in text.split(",")):
        is_ordinal = has_ordinals(entry)
        is_other_kind = is_ordinal != is_first_ordinal and not may_mix
        position = None if is_other_kind else _position(entry, names)
        if position is None:
            break
        if position in positions:
            return ()
        positions.append(position)
    return tuple(positions)


def _position(entry: str, names: Sequence[Collection[str]]) -> int | None:
    ordinal = _ORDINAL.match(entry)
    if ordinal is not None:  # what stands behind the digits is not looked at
        number = int(ordinal.group())
        return number if number < len(names) else None
    if _NAME.match(entry) is None:
        return None
    wanted = entry.lower()
    exact = [i for i, own in enumerate(names) if wanted in _lower(own)]
    begun = [
        i
        for i, own in enumerate(names)
        if any(name.startswith(wanted) for name in _lower(own))
    ]
    matching = exact or begun
    return matching[0] if len(matching) == 1 else None


def _lower(names: Collection[str]) -> list[str]:
    return [name.lower() for name in names]
