"""The folder that old records are archived in: tables, and the key of the pseudonyms."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_aistack.core.audit.chain import NAMES_DIGEST, Row
from jupyter_aistack.core.audit.pseudonyms import pseudonymized
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKind
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.system.files import create_atomic
from jupyter_aistack.system.table_files import (
    SUFFIXES,
    file_digest,
    read_table,
    suffix,
    write_table,
)

KEY_BYTES = 32
PSEUDONYMOUS = "-p"
"""Ends the name of a file that names nobody."""
KEY_FILE = "pseudonyms.key"
FOLDER_MODE = 0o700


class ArchiveFolder:
    """Reads and writes archive files.

    Args:
        path: the folder; it is made with the first file.
        key_folder: where the key of the pseudonyms is, beside the ledger.
    """

    def __init__(self, path: Path, key_folder: Path) -> None:
        self.path = path
        self._key_file = key_folder / KEY_FILE

    def write(
        self, segment: ArchiveSegment, rows: Sequence[Row], *, is_pseudonymous: bool
    ) -> tuple[str, str]:
        """Write the file of a segment; its path, and its SHA-256.

        Raises:
            LedgerUnavailable: it cannot be written.
        """
        if segment.kind is RecordKind.EVENTS:
            rows = [{NAMES_DIGEST: "", **row} for row in rows]
        try:
            if is_pseudonymous:
                key = self._key()
                rows = [pseudonymized(segment.kind, row, key) for row in rows]
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            path = self._path_of(segment, is_pseudonymous=is_pseudonymous)
            return str(path), write_table(path, rows)
        except OSError as error:
            raise LedgerUnavailable(
                f"archive_folder: {self.path} cannot be written: {error.strerror}; old "
                "records stay in the ledger",
                field="archive_folder",
            ) from error

    def _path_of(self, segment: ArchiveSegment, *, is_pseudonymous: bool) -> Path:
        mark = PSEUDONYMOUS if is_pseudonymous else ""
        return self.path / f"{segment.kind.value}-{segment.number:06d}{mark}{suffix()}"

    def drop_names(self, segment: ArchiveSegment) -> None:
        """Remove the file of a segment that still had names, where it is still there."""
        for ending in SUFFIXES:
            name = f"{segment.kind.value}-{segment.number:06d}{ending}"
            with contextlib.suppress(OSError):
                Path(segment.file).with_name(name).unlink()

    def read(self, segment: ArchiveSegment) -> list[dict[str, Any]] | None:
        """The records of a segment; None where its file is not there or cannot be
        read.
        """
        try:
            return read_table(Path(segment.file))
        except (OSError, ValueError):
            return None

    def is_whole(self, segment: ArchiveSegment) -> bool:
        """Whether the file of a segment is what was written."""
        try:
            return file_digest(Path(segment.file)) == segment.file_digest
        except OSError:
            return False

    def _key(self) -> bytes:
        """The key of the pseudonyms, made with its first use, for its owner alone.

        Raises:
            LedgerUnavailable: what is there is no key: whoever knew it could try names.
            OSError: it cannot be made or read.
        """
        if not self._key_file.exists():
            with contextlib.suppress(FileExistsError):
                create_atomic(self._key_file, secrets.token_bytes(KEY_BYTES))
        key = self._key_file.read_bytes()
        if len(key) != KEY_BYTES:
            raise LedgerUnavailable(
                f"pseudonymize_after: {self._key_file} is no key of {KEY_BYTES} bytes; "
                "bring it back from a backup, or take it away for a new one",
                field="pseudonymize_after",
            )
        return key
