"""How an event is put at the end of the chain of a ledger."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.audit.chain import Link, digest
from jupyter_aistack.core.model.archive import RecordKey
from jupyter_aistack.core.model.events import Event

from .actor import signed

SALT_BYTES = 8


def sealed(
    event: Event, link: Link, as_row: Callable[[Event], Mapping[str, Any]]
) -> tuple[Mapping[str, Any], Link]:
    """The row of an event behind `link`, with who has made it happen and its digest, and
    where the chain goes on after it.

    Args:
        event: what has happened.
        link: the last event of the ledger.
        as_row: how the ledger writes an event: what is hashed is what is kept.
    """
    placed = replace(
        signed(event), sequence=link.sequence + 1, salt=secrets.token_hex(SALT_BYTES)
    )
    row = as_row(placed)
    seal = digest(row, link.digest)
    return {**row, "digest": seal}, Link(sequence=placed.sequence, digest=seal)


def old_beginning(
    events: Iterable[tuple[int, float]], before: float, now: float
) -> Sequence[RecordKey]:
    """Sequences of the events that are older than a time and stand before all that are
    not: what is archived is the beginning of the chain. A time that is still to come is
    of a clock that was wrong, and keeps nothing.

    Args:
        events: sequences and times, in order.
    """
    keys: list[RecordKey] = []
    for sequence, at in events:
        if before <= at <= now:
            break
        keys.append(sequence)
    return keys
