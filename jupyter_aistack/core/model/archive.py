"""What has left a ledger for files: the catalogue that the ledger keeps of them.

A segment is begun with the keys of the records that it is to hold, then its file is
written, then the records are removed from the ledger, a few at a time. Whoever crashes
leaves a segment from which the next goes on: a file that was not finished is written
again from the same records, and what a finished file holds is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class RecordKind(StrEnum):
    """Records that leave the ledger when they are old, in the order in which they do."""

    LEASES = "leases"  # that have ended
    REQUESTS = "requests"  # that are decided, and whose leases have left
    CELLS = "cells"  # what cells were charged; their leases keep the sums
    EVENTS = "events"


class SegmentState(StrEnum):
    """How far a segment is."""

    WRITING = "writing"  # its file is not there, or not whole
    PRUNING = "pruning"  # its file is; its records may still be in the ledger
    DONE = "done"


RecordKey = str | int | Sequence[str | int]
"""What names a record of a kind: a number, an id, or the parts of one."""


@dataclass(frozen=True, kw_only=True)
class ArchiveSegment:
    """Records that leave the ledger together.

    Attributes:
        number: its place in the catalogue, 1 upwards.
        kind: of what.
        state: how far it is.
        host: what the host is called whose file it is.
        file: where, once it is written; empty before.
        file_digest: SHA-256 of that file.
        keys: JSON: those of its records, in their order; empty once it is done.
        count: how many records.
        pruned: how many of them have left the ledger.
        first, last: of events, the first and the last sequence; 0 of others.
        digest: of events, the digest of the last: the chain goes on from it.
        before: its records are older than this, in seconds since the epoch.
        is_pseudonymous: the names of people in its file were replaced.
    """

    number: int
    kind: RecordKind
    state: SegmentState = SegmentState.WRITING
    host: str = ""
    file: str = ""
    file_digest: str = ""
    keys: str = "[]"
    count: int = 0
    pruned: int = 0
    first: int = 0
    last: int = 0
    digest: str = ""
    before: float
    is_pseudonymous: bool = False
