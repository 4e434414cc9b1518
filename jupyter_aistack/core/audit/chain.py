"""The chain of events: each has a hash of itself and of the event before it.

An event is hashed in two parts. Its *names* (who did it, whose it is, and all free text)
are hashed with a salt of the event's own; its *facts* (its place, kind, time and what
it is about) with that hash and the digest of the event before. So names can be taken
out of an archive later, and the chain still holds: the hash of the names stays, and
without the salt nobody can guess them from it.

The canonical form of both is JSON (RFC 8259) in ASCII, without spaces, its keys sorted;
the hash is SHA-256, in hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Row = Mapping[str, object]
"""An event by the names of its fields: text, numbers and None alone."""

FACTS = ("sequence", "kind", "at", "request_id", "lease_id", "device_id")
NAMES = (
    "owner",
    "detail",
    "before",
    "after",
    "host",
    "user",
    "uid",
    "pid",
    "command",
)
NAMES_DIGEST = "names_digest"
"""The field of an archived event whose names were replaced: the hash of what they were."""


class FlawKind(StrEnum):
    """What is wrong with a chain."""

    EDITED = "edited"  # an event is not what was written, or not where
    MISSING = "missing"  # an event has been removed
    DISORDERED = "disordered"  # an event stands behind a later one
    FILE = "file"  # an archive file is missing or not what was written


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where a chain goes on.

    Attributes:
        sequence: of the event before; 0 at the beginning.
        digest: of that event; empty at the beginning.
    """

    sequence: int = 0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """The first place where a chain does not hold.

    Attributes:
        kind: what is wrong.
        sequence: of the event that is wrong, or missing.
        message: the same, for people.
    """

    kind: FlawKind
    sequence: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far a chain holds.

    Attributes:
        link: the last event that is as it was written.
        count: how many were looked at and are.
        pseudonymous: of them, those whose names were replaced, and so only their facts
            could be looked at.
        flaw: what is wrong with the next; None for nothing.
    """

    link: Link
    count: int = 0
    pseudonymous: int = 0
    flaw: Flaw | None = None


def names_digest(row: Row) -> str:
    """The hash of an event's names with its salt."""
    sealed = {"salt": row["salt"]}
    for name in NAMES:
        sealed[name] = row[name]
    return _hash(sealed)


def digest(row: Row, previous: str, names: str = "") -> str:
    """The hash that seals an event.

    Args:
        row: the event, with its sequence and salt.
        previous: the digest of the event before; empty for the first.
        names: the hash of its names, where they were replaced.
    """
    sealed: dict[str, object] = {
        "previous": previous,
        NAMES_DIGEST: names or names_digest(row),
    }
    for name in FACTS:
        sealed[name] = row[name]
    # A database may give a time that is a whole number back as one.
    sealed["at"] = float(str(row["at"]))
    return _hash(sealed)


def follow(rows: Iterable[Row], link: Link) -> Verdict:
    """Check events in the order in which they are kept, from `link` on; the first that
    does not hold ends it.
    """
    count = 0
    pseudonymous = 0
    for row in rows:
        replaced = str(row.get(NAMES_DIGEST) or "")
        flaw = _flaw(row, link, replaced)
        if flaw is not None:
            return Verdict(link=link, count=count, pseudonymous=pseudonymous, flaw=flaw)
        link = Link(sequence=link.sequence + 1, digest=str(row["digest"]))
        count += 1
        pseudonymous += bool(replaced)
    return Verdict(link=link, count=count, pseudonymous=pseudonymous)


def removed(sequence: int) -> Flaw:
    """The flaw that an event is not there."""
    return Flaw(
        kind=FlawKind.MISSING,
        sequence=sequence,
        message=f"event {sequence} has been removed",
    )


def _flaw(row: Row, link: Link, replaced: str) -> Flaw | None:
    expected = link.sequence + 1
    sequence = row["sequence"]
    if not isinstance(sequence, int) or sequence < expected:
        return Flaw(
            kind=FlawKind.DISORDERED,
            sequence=expected,
            message=f"event {sequence} stands where event {expected} belongs",
        )
    if sequence > expected:
        return removed(expected)
    if not _is_sealed(row, link.digest, replaced):
        return Flaw(
            kind=FlawKind.EDITED,
            sequence=expected,
            message=f"event {expected} is not as it was written",
        )
    return None


def _is_sealed(row: Row, previous: str, replaced: str) -> bool:
    try:
        return digest(row, previous, replaced) == row["digest"]
    except (KeyError, TypeError, ValueError):
        return False  # none of our writing


def _hash(value: Mapping[str, object]) -> str:
    text = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
    )
    sealed = hashlib.sha256(text.encode("ascii"))
    return sealed.hexdigest()
