"""What is old leaves the ledger for the archive, a little in each turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKind, SegmentState
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.exceptions import LedgerConflict
from jupyter_aistack.ledger.base import Ledger

from .archive_folder import ArchiveFolder
from .usage_meter import KEEP_CELLS_DAYS

SEGMENT_RECORDS = 5000
"""Records of one file at most."""
PRUNED = 500
"""Records removed in one transaction: others wait for it, for milliseconds."""
LOOK_SECONDS = 600.0
"""Between two looks for what is old, where nothing was."""
COUNTED = 1_000_000
"""So many old records are counted at most, to be told of."""


@dataclass(kw_only=True)
class Archived:
    """What an archiver has done.

    Attributes:
        counts: records that have left, by kind.
        files: the files that they are in now.
    """

    counts: dict[RecordKind, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


class Archiver:
    """Archives what is older than the settings keep it.

    Args:
        ledger: what it leaves.
        folder: where it goes; None for nowhere: all is kept.
        retention: what is kept for how long.
        host: what this host is called.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: ArchiveFolder | None,
        retention: Retention,
        *,
        host: str,
        clock: Callable[[], float],
    ) -> None:
        self.folder = folder
        self._ledger = ledger
        self._retention = retention
        self._host = host
        self._clock = clock
        self._looked_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether what is old is archived here."""
        is_kept_for_ever = self._retention.seconds is None
        return self.folder is not None and not is_kept_for_ever

    def turn(self) -> bool:
        """Do a little of what is to be done; whether there may be more.

        Raises:
            LedgerError: the ledger does not answer, or the folder cannot be written.
        """
        now = self._clock()
        before = self._retention.before(now)
        if before is None or 0 <= now - self._looked_at < LOOK_SECONDS:
            return False
        if self._step(before, adopts=False) is not None:
            return True
        if self._rewrite_names(now):
            return True
        self._looked_at = now
        return False

    def run(self, before: float | None) -> Archived:
        """Archive all that is old, now; what another host has begun too.

        Args:
            before: records that ended before this; None for what the settings say.
        """
        now = self._clock()
        limit = self._retention.before(now) if before is None else before
        done = Archived()
        if limit is None:
            return done
        while (segment := self._step(min(limit, now), adopts=True)) is not None:
            if segment.state is SegmentState.DONE:
                known = done.counts.get(segment.kind, 0)
                done.counts[segment.kind] = known + segment.count
                done.files.append(segment.file)
        while self._rewrite_names(now):
            pass
        return done

    def count(self, before: float | None) -> dict[RecordKind, int]:
        """How many records would leave the ledger, by kind; requests of leases that
        would leave as well are not among them yet.
        """
        now = self._clock()
        limit = self._retention.before(now) if before is None else before
        if limit is None:
            return dict.fromkeys(RecordKind, 0)
        counts = {}
        for kind in RecordKind:
            before = _limit(kind, min(limit, now), now)
            counts[kind] = self._ledger.count_old(kind, before, now, COUNTED)
        return counts

    def _step(self, before: float, *, adopts: bool) -> ArchiveSegment | None:
        """Bring the first segment that is not done one step on; None where nothing is to
        be done.
        """
        if self.folder is None:
            return None
        now = self._clock()
        for kind in RecordKind:
            segment = self._ledger.begin_segment(
                kind,
                _limit(kind, before, now),
                now,
                host=self._host,
                limit=SEGMENT_RECORDS,
                adopts=adopts,
            )
            if segment is None:
                continue
            if segment.state is SegmentState.PRUNING:
                return self._ledger.prune_segment(segment.number, PRUNED, now)
            written = self._write(segment, self.folder)
            if written is not None:
                return written
        return None

    def _write(
        self, segment: ArchiveSegment, folder: ArchiveFolder
    ) -> ArchiveSegment | None:
        """Write the file of a segment; None where another process has been faster."""
        rows = self._ledger.segment_rows(segment)
        if len(rows) != segment.count and not self._is_unwritten(segment):
            return None
        names_nobody = self._retention.is_pseudonymous(segment.before, self._clock())
        file, digest = folder.write(segment, rows, is_pseudonymous=names_nobody)
        try:
            return self._ledger.keep_file(
                segment, file=file, file_digest=digest, is_pseudonymous=names_nobody
            )
        except LedgerConflict:
            return None

    def _is_unwritten(self, segment: ArchiveSegment) -> bool:
        """Whether nobody has written the file yet, so that records that are missing were
        taken away by no archiver.
        """
        segments = self._ledger.archive_segments()
        current = next(each for each in segments if each.number == segment.number)
        return current.state is SegmentState.WRITING

    def _rewrite_names(self, now: float) -> bool:
        """Write one file anew without names, whose time has come; whether there was
        one.
        """
        if self.folder is None:
            return False
        for segment in self._ledger.archive_segments():
            if segment.host != self._host or segment.state is not SegmentState.DONE:
                continue
            if segment.is_pseudonymous:
                self.folder.drop_names(segment)
                continue
            is_due = self._retention.is_pseudonymous(segment.before, now)
            if is_due and self._write_without_names(segment, self.folder):
                return True
        return False

    def _write_without_names(
        self, segment: ArchiveSegment, folder: ArchiveFolder
    ) -> bool:
        rows = folder.read(segment)
        # A file that was changed must not get a digest that says it was not: it stays,
        # and the verification tells of it.
        if rows is None or not folder.is_whole(segment):
            return False
        file, digest = folder.write(segment, rows, is_pseudonymous=True)
        kept = self._ledger.keep_file(
            segment, file=file, file_digest=digest, is_pseudonymous=True
        )
        # Only now: whoever crashes before it still has the file that is known.
        folder.drop_names(kept)
        return True


def _limit(kind: RecordKind, before: float, now: float) -> float:
    """Records of a kind that are older than this leave; those of cells no later than
    they become part of their leases.
    """
    if kind is not RecordKind.CELLS:
        return before
    return max(before, now - KEEP_CELLS_DAYS * DAY_SECONDS)
