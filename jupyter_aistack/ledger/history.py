"""The part of the ledger port that tells what has happened, and whether what it tells is
what was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jupyter_aistack.core.audit.chain import Link, Row
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKind
from jupyter_aistack.core.model.events import Event


@dataclass(frozen=True, kw_only=True)
class ChainEnds:
    """Where the chain of a ledger's events begins and ends.

    Attributes:
        chained_after: the last event of a schema that kept no digests; 0 for none.
        end: the last event.
    """

    chained_after: int = 0
    end: Link


class History(ABC):
    """What has happened, in order."""

    @abstractmethod
    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Events with a sequence above `after`, in order. The oldest may have been
        archived.
        """

    @abstractmethod
    def record(self, event: Event) -> None:
        """Write down what has happened outside requests, leases, reservations and
        devices, such as that an admin's settings are in force.
        """

    @abstractmethod
    def event_rows(self, after: int = 0, limit: int = 1000) -> tuple[Row, ...]:
        """The same events as they are kept, those that cannot be read included."""

    @abstractmethod
    def told_events(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        since: float = 0.0,
        user: str | None = None,
    ) -> tuple[Row, ...]:
        """Events as they are kept, from a time on.

        Args:
            user: only those of this user: what the user did, and what happened to what
                the user has.
        """

    @abstractmethod
    def chain_ends(self) -> ChainEnds:
        """Where the chain begins and ends."""

    # -- what leaves for files ---------------------------------------------------------

    @abstractmethod
    def archive_segments(self) -> tuple[ArchiveSegment, ...]:
        """The catalogue of what has left, or is leaving, in order."""

    @abstractmethod
    def count_old(self, kind: RecordKind, before: float, now: float, limit: int) -> int:
        """How many records of a kind are older than a time and may leave; at most
        `limit`.
        """

    @abstractmethod
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
        """The segment of a kind that is not done yet, or a new one of what is older than a
        time; None where nothing is old, or another host is at it.

        Args:
            host: what this host is called, which will write the file.
            limit: so many records at most.
            adopts: take over what another host has begun: that host is gone.
        """

    @abstractmethod
    def segment_rows(self, segment: ArchiveSegment) -> tuple[Row, ...]:
        """The records of a segment, as they are kept; those that have left are left
        out.
        """

    @abstractmethod
    def keep_file(
        self,
        segment: ArchiveSegment,
        *,
        file: str,
        file_digest: str,
        is_pseudonymous: bool,
    ) -> ArchiveSegment:
        """Note that the file of a segment is written; its records may leave.

        Raises:
            LedgerConflict: another host has taken it over.
        """

    @abstractmethod
    def prune_segment(self, number: int, limit: int, now: float) -> ArchiveSegment:
        """Remove records of a segment whose file is written, at most `limit`."""
