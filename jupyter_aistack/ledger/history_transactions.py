"""What a ledger tells of its events, and what leaves it for files, over the transactions
of a medium.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from jupyter_aistack.core.audit.chain import Row
from jupyter_aistack.core.audit.changes import as_text
from jupyter_aistack.core.model.archive import (
    ArchiveSegment,
    RecordKey,
    RecordKind,
    SegmentState,
)
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.exceptions import LedgerConflict

from . import accounting
from .history import ChainEnds
from .rows import Rows
from .transactions import Transactions, within


class HistoryTransactions(Transactions):
    """The part of the port that tells what has happened."""

    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        with self._reading() as rows:
            return tuple(rows.events(within(after), within(limit)))

    def record(self, event: Event) -> None:
        with self._changing(event.at) as rows:
            rows.append(event)

    def event_rows(self, after: int = 0, limit: int = 1000) -> tuple[Row, ...]:
        with self._reading() as rows:
            return tuple(rows.event_rows(within(after), within(limit)))

    def told_events(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        since: float = 0.0,
        user: str | None = None,
    ) -> tuple[Row, ...]:
        with self._reading() as rows:
            page = (within(after), within(limit))
            return tuple(rows.told_events(*page, since=since, user=user))

    def chain_ends(self) -> ChainEnds:
        with self._reading() as rows:
            return ChainEnds(chained_after=rows.chained_after(), end=rows.chain_end)

    # -- what leaves for files ---------------------------------------------------------

    def archive_segments(self) -> tuple[ArchiveSegment, ...]:
        with self._reading() as rows:
            return tuple(rows.segments())

    def count_old(self, kind: RecordKind, before: float, now: float, limit: int) -> int:
        with self._reading() as rows:
            return len(rows.old_keys(kind, before, now, within(limit)))

    def begin_segment(
        self,
        kind: RecordKind,
        before: float,
        now: float,
        *,
        host: str,
        limit: int,
        adopts: bool = False,
    ) -> ArchiveSegment | None:
        with self._reading() as rows:
            begun = _unfinished(rows, kind)
            if begun is None and not rows.old_keys(kind, before, now, 1):
                return None
        if begun is not None and begun.host == host:
            return begun
        if begun is not None and not adopts:
            return None
        with self._writing() as rows:
            begun = _unfinished(rows, kind)
            if begun is None:
                return _begin(rows, kind, before, now, host, within(limit))
            taken = replace(begun, host=host)
            rows.keep_segment(taken)
            return taken

    def segment_rows(self, segment: ArchiveSegment) -> tuple[Row, ...]:
        with self._reading() as rows:
            return tuple(rows.kept_rows(segment.kind, json.loads(segment.keys)))

    def keep_file(
        self,
        segment: ArchiveSegment,
        *,
        file: str,
        file_digest: str,
        is_pseudonymous: bool,
    ) -> ArchiveSegment:
        with self._writing() as rows:
            current = _segment(rows, segment.number)
            if current.host != segment.host:
                raise LedgerConflict(f"{current.host} writes {current.kind.value} now")
            is_written = current.state is not SegmentState.WRITING
            kept = replace(
                current,
                state=current.state if is_written else SegmentState.PRUNING,
                file=file,
                file_digest=file_digest,
                is_pseudonymous=is_pseudonymous,
            )
            rows.keep_segment(kept)
            return kept

    def prune_segment(self, number: int, limit: int, now: float) -> ArchiveSegment:
        with self._writing() as rows:
            segment = _segment(rows, number)
            if segment.state is not SegmentState.PRUNING:
                return segment
            keys = json.loads(segment.keys)[segment.pruned :][:limit]
            _remove(rows, segment.kind, keys)
            pruned = replace(segment, pruned=segment.pruned + len(keys))
            if pruned.pruned >= pruned.count:
                pruned = replace(pruned, state=SegmentState.DONE, keys="[]")
                rows.append(_archived(pruned, now))
            rows.keep_segment(pruned)
            return pruned


def _unfinished(rows: Rows, kind: RecordKind) -> ArchiveSegment | None:
    for segment in rows.segments():
        if segment.kind is kind and segment.state is not SegmentState.DONE:
            return segment
    return None


def _segment(rows: Rows, number: int) -> ArchiveSegment:
    return next(segment for segment in rows.segments() if segment.number == number)


def _begin(
    rows: Rows, kind: RecordKind, before: float, now: float, host: str, limit: int
) -> ArchiveSegment | None:
    keys = rows.old_keys(kind, before, now, limit)
    if not keys:
        return None  # another process was first
    segment = ArchiveSegment(
        number=len(rows.segments()) + 1,
        kind=kind,
        host=host,
        keys=json.dumps(keys, separators=(",", ":")),
        count=len(keys),
        before=before,
    )
    if kind is RecordKind.EVENTS:
        segment = _with_ends(rows, segment, keys)
    rows.keep_segment(segment, is_new=True)
    return segment


def _with_ends(
    rows: Rows, segment: ArchiveSegment, keys: Sequence[RecordKey]
) -> ArchiveSegment:
    first = keys[0]
    last = keys[-1]
    assert isinstance(first, int)
    assert isinstance(last, int)
    (row,) = rows.kept_rows(segment.kind, [last])
    return replace(segment, first=first, last=last, digest=str(row["digest"]))


def _remove(rows: Rows, kind: RecordKind, keys: Sequence[RecordKey]) -> None:
    if kind is not RecordKind.CELLS:
        rows.remove_rows(kind, keys)
        return
    # What cells cost stays in the books, as part of their leases.
    for key in keys:
        assert not isinstance(key, str | int)
        host, device_id, lease_id, cell, day = key
        place = (str(host), str(device_id), str(lease_id), str(cell), int(day))
        accounting.fold_cell(rows, place)


def _archived(segment: ArchiveSegment, now: float) -> Event:
    """What the chain keeps of a segment: with it, its file is known by its digest."""
    facts = {
        "kind": segment.kind.value,
        "count": segment.count,
        "file": segment.file,
        "sha256": segment.file_digest,
    }
    if segment.last:
        facts |= {
            "first": segment.first,
            "last": segment.last,
            "digest": segment.digest,
        }
    return Event(
        kind=EventKind.HISTORY_ARCHIVED,
        at=now,
        detail=f"{segment.count} {segment.kind.value}",
        after=as_text(facts),
    )
