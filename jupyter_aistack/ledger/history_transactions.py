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
    ArchivePiece,
    PieceState,
    RecordKey,
    RecordKind,
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

    def archive_pieces(self) -> tuple[ArchivePiece, ...]:
        with self._reading() as rows:
            return tuple(rows.pieces())

    def count_old(self, kind: RecordKind, before: float, now: float, limit: int) -> int:
        with self._reading() as rows:
            return len(rows.old_keys(kind, before, now, within(limit)))

    def begin_piece(
        self,
        kind: RecordKind,
        before: float,
        now: float,
        *,
        host: str,
        limit: int,
        adopts: bool = False,
    ) -> ArchivePiece | None:
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
            rows.keep_piece(taken)
            return taken

    def piece_rows(self, piece: ArchivePiece) -> tuple[Row, ...]:
        with self._reading() as rows:
            return tuple(rows.kept_rows(piece.kind, json.loads(piece.keys)))

    def keep_file(
        self,
        piece: ArchivePiece,
        *,
        file: str,
        file_digest: str,
        is_pseudonymous: bool,
    ) -> ArchivePiece:
        with self._writing() as rows:
            current = _piece(rows, piece.number)
            if current.host != piece.host:
                raise LedgerConflict(f"{current.host} writes {current.kind.value} now")
            is_written = current.state is not PieceState.WRITING
            kept = replace(
                current,
                state=current.state if is_written else PieceState.PRUNING,
                file=file,
                file_digest=file_digest,
                is_pseudonymous=is_pseudonymous,
            )
            rows.keep_piece(kept)
            return kept

    def prune_piece(self, number: int, limit: int, now: float) -> ArchivePiece:
        with self._writing() as rows:
            piece = _piece(rows, number)
            if piece.state is not PieceState.PRUNING:
                return piece
            keys = json.loads(piece.keys)[piece.pruned :][:limit]
            _remove(rows, piece.kind, keys)
            pruned = replace(piece, pruned=piece.pruned + len(keys))
            if pruned.pruned >= pruned.count:
                pruned = replace(pruned, state=PieceState.DONE, keys="[]")
                rows.append(_archived(pruned, now))
            rows.keep_piece(pruned)
            return pruned


def _unfinished(rows: Rows, kind: RecordKind) -> ArchivePiece | None:
    for piece in rows.pieces():
        if piece.kind is kind and piece.state is not PieceState.DONE:
            return piece
    return None


def _piece(rows: Rows, number: int) -> ArchivePiece:
    return next(piece for piece in rows.pieces() if piece.number == number)


def _begin(
    rows: Rows, kind: RecordKind, before: float, now: float, host: str, limit: int
) -> ArchivePiece | None:
    keys = rows.old_keys(kind, before, now, limit)
    if not keys:
        return None  # another process was first
    piece = ArchivePiece(
        number=len(rows.pieces()) + 1,
        kind=kind,
        host=host,
        keys=json.dumps(keys, separators=(",", ":")),
        count=len(keys),
        before=before,
    )
    if kind is RecordKind.EVENTS:
        piece = _with_ends(rows, piece, keys)
    rows.keep_piece(piece, is_new=True)
    return piece


def _with_ends(
    rows: Rows, piece: ArchivePiece, keys: Sequence[RecordKey]
) -> ArchivePiece:
    first = keys[0]
    last = keys[-1]
    assert isinstance(first, int)
    assert isinstance(last, int)
    (row,) = rows.kept_rows(piece.kind, [last])
    return replace(piece, first=first, last=last, digest=str(row["digest"]))


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


def _archived(piece: ArchivePiece, now: float) -> Event:
    """What the chain keeps of a piece: with it, its file is known by its digest."""
    facts = {
        "kind": piece.kind.value,
        "count": piece.count,
        "file": piece.file,
        "sha256": piece.file_digest,
    }
    if piece.last:
        facts |= {"first": piece.first, "last": piece.last, "digest": piece.digest}
    return Event(
        kind=EventKind.HISTORY_ARCHIVED,
        at=now,
        detail=f"{piece.count} {piece.kind.value}",
        after=as_text(facts),
    )
