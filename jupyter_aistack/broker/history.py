"""The parts of a broker that look after what has happened: archive and verification."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_aistack.core.audit.changes import as_text
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.retention import Retention
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.base import Ledger

from .archive_folder import ArchiveFolder
from .archiver import Archiver
from .audit import Audit

log = logging.getLogger("jupyter_aistack")


@dataclass(frozen=True, kw_only=True)
class HistoryOptions:
    """Where old records go, and when.

    Attributes:
        folder: of the archive; None where this process archives nothing.
        key_folder: of the key of the pseudonyms.
        retention: what is kept for how long.
    """

    folder: Path | None = None
    key_folder: Path = Path()
    retention: Retention = field(default_factory=Retention)

    def archive_folder(self) -> ArchiveFolder | None:
        """The folder to write to, where there is one."""
        if self.folder is None:
            return None
        return ArchiveFolder(self.folder, self.key_folder)


class HistoryKeeper:
    """Archives what is old, and verifies what is kept.

    Args:
        ledger: where everything is written down.
        options: where old records go, and when.
        host: what this host is called.
        clock: seconds since the epoch.

    Attributes:
        archiver, audit: its two parts.
    """

    def __init__(
        self,
        ledger: Ledger,
        options: HistoryOptions,
        *,
        host: str,
        clock: Callable[[], float],
    ) -> None:
        folder = options.archive_folder()
        self._ledger = ledger
        self._clock = clock
        self._complaint = ""
        self.audit = Audit(ledger, folder, host)
        self.archiver = Archiver(
            ledger, folder, options.retention, host=host, clock=clock
        )

    def tend(self) -> None:
        """Archive a little of what is old. What fails is said once, and tried again:
        until then it stays in the ledger.
        """
        try:
            self.archiver.turn()
            self._complaint = ""
        except AIStackError as error:
            if error.message != self._complaint:
                log.warning("%s", error.message)
            self._complaint = error.message

    def settings_changed(
        self, detail: str, before: Mapping[str, object], after: Mapping[str, object]
    ) -> None:
        """Write down that an admin's settings are in force.

        Args:
            detail: where they are from.
            before, after: those that have changed.
        """
        self._note(EventKind.SETTINGS_CHANGED, detail, as_text(before), as_text(after))

    def device_cut(self, steps: str) -> None:
        """Write down that an admin has had GPUs cut."""
        self._note(EventKind.DEVICE_CUT, steps, "", "")

    def _note(self, kind: EventKind, detail: str, before: str, after: str) -> None:
        at = self._clock()
        self._ledger.record(
            Event(kind=kind, at=at, detail=detail, before=before, after=after)
        )
