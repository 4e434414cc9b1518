"""Whether what a ledger and its archive tell is what was written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jupyter_aistack.core.audit.chain import (
    Flaw,
    FlawKind,
    Link,
    Verdict,
    follow,
    removed,
)
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKind, SegmentState
from jupyter_aistack.ledger.base import Ledger

from .archive_folder import ArchiveFolder

PAGE = 2000
"""Events that are checked by one call."""


@dataclass(frozen=True, kw_only=True)
class AuditPosition:
    """How far a verification is.

    Attributes:
        segment: the number of the archive file that is next.
        link: the last event that is as it was written.
    """

    segment: int = 1
    link: Link


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """What one step of a verification has found.

    Attributes:
        position: where the next goes on; None where this was the last.
        verdict: what was checked by it.
        elsewhere: an archive file that is on another host, and so was not checked; empty
            for none.
    """

    position: AuditPosition | None
    verdict: Verdict
    elsewhere: str = ""


class Audit:
    """Verifies the chain of events over archive files and the ledger.

    Args:
        ledger: what keeps it.
        folder: reads archive files; None where there are none.
        host: what this host is called.
    """

    def __init__(self, ledger: Ledger, folder: ArchiveFolder | None, host: str) -> None:
        self._ledger = ledger
        self._folder = folder
        self._host = host

    def step(self, position: AuditPosition | None) -> AuditPage:
        """Check a little more; None begins.

        Archive files come first, in their order, then what is in the ledger.
        """
        if position is None:
            start = Link(sequence=self.chained_after())
            position = AuditPosition(link=start)
        for segment in self._ledger.archive_segments():
            is_written = segment.state is not SegmentState.WRITING
            if segment.number >= position.segment and is_written:
                return self._of_segment(segment, position)
        return self._of_ledger(position)

    def chained_after(self) -> int:
        """The last event of a version that did not chain them; 0 for none."""
        return self._ledger.chain_ends().chained_after

    def _of_segment(
        self, segment: ArchiveSegment, position: AuditPosition
    ) -> AuditPage:
        onward = replace(position, segment=segment.number + 1)
        if segment.host != self._host or self._folder is None:
            link = _end_of(segment, position.link)
            unseen = Verdict(link=link)
            elsewhere = f"{segment.file} on {segment.host}"
            page = AuditPage(position=replace(onward, link=link), verdict=unseen)
            return replace(page, elsewhere=elsewhere)
        verdict = Verdict(link=position.link)
        if segment.kind is RecordKind.EVENTS:
            verdict = self._follow_file(segment, position.link, self._folder)
        if verdict.flaw is None and not self._folder.is_whole(segment):
            verdict = replace(verdict, flaw=_spoilt(segment, verdict.link))
        if verdict.flaw is not None:
            return AuditPage(position=None, verdict=verdict)
        return AuditPage(position=replace(onward, link=verdict.link), verdict=verdict)

    def _follow_file(
        self, segment: ArchiveSegment, link: Link, folder: ArchiveFolder
    ) -> Verdict:
        rows = folder.read(segment)
        if rows is None:
            return Verdict(link=link, flaw=_spoilt(segment, link))
        # Events of a schema that kept no digests have left with the others.
        chained = [row for row in rows if int(row["sequence"]) > link.sequence]
        verdict = follow(chained, link)
        if verdict.flaw is None and verdict.link != _end_of(segment, link):
            return replace(verdict, flaw=removed(verdict.link.sequence + 1))
        return verdict

    def _of_ledger(self, position: AuditPosition) -> AuditPage:
        # Read first: what is written meanwhile is beyond it.
        end = self._ledger.chain_ends().end
        rows = self._ledger.event_rows(position.link.sequence, PAGE)
        verdict = follow(rows, position.link)
        if verdict.flaw is not None:
            return AuditPage(position=None, verdict=verdict)
        if rows:
            return AuditPage(
                position=replace(position, link=verdict.link), verdict=verdict
            )
        is_short = position.link.sequence < end.sequence
        if is_short:
            missing = removed(position.link.sequence + 1)
            verdict = replace(verdict, flaw=missing)
        elif position.link.sequence == end.sequence and position.link != end:
            verdict = replace(verdict, flaw=_rewritten(end))
        return AuditPage(position=None, verdict=verdict)


def _end_of(segment: ArchiveSegment, link: Link) -> Link:
    """Where the chain goes on after a segment."""
    if segment.kind is not RecordKind.EVENTS or segment.last <= link.sequence:
        return link
    return Link(sequence=segment.last, digest=segment.digest)


def _spoilt(segment: ArchiveSegment, link: Link) -> Flaw:
    return Flaw(
        kind=FlawKind.FILE,
        sequence=link.sequence + 1,
        message=f"the archive file {segment.file} is missing or is not what was written",
    )


def _rewritten(end: Link) -> Flaw:
    return Flaw(
        kind=FlawKind.EDITED,
        sequence=end.sequence,
        message=f"event {end.sequence} is not the one that the ledger ended with",
    )
