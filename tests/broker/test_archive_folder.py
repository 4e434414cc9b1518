"""The folder that old records are archived in."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.broker.archive_folder import KEY_FILE, ArchiveFolder
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKind
from jupyter_aistack.exceptions import LedgerUnavailable

SEGMENT = ArchiveSegment(number=7, kind=RecordKind.CELLS, before=5.0)
ROWS = [{"user": "ann", "label": "a.ipynb", "owner": "k-1", "seconds": 3.0}]


def written(folder: ArchiveFolder, *, is_pseudonymous: bool = False) -> ArchiveSegment:
    file, digest = folder.write(SEGMENT, ROWS, is_pseudonymous=is_pseudonymous)
    return replace(SEGMENT, file=file, file_digest=digest)


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    folder = ArchiveFolder(tmp_path / "archive", tmp_path)
    file = Path(written(folder).file)
    assert file.name.startswith("cells-000007.")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert not (tmp_path / KEY_FILE).exists()


def test_what_was_written_is_read_and_what_was_changed_is_seen(tmp_path: Path) -> None:
    folder = ArchiveFolder(tmp_path / "archive", tmp_path)
    segment = written(folder)
    assert folder.read(segment) == ROWS
    assert folder.is_whole(segment)
    Path(segment.file).write_text("spoilt")
    assert not folder.is_whole(segment)
    assert folder.read(segment) is None
    Path(segment.file).unlink()
    assert not folder.is_whole(segment)


def test_a_person_keeps_a_pseudonym_over_processes(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        folder = ArchiveFolder(tmp_path / "archive", tmp_path)
        (row,) = folder.read(written(folder, is_pseudonymous=True)) or ()
        names.add(row["user"])
    assert len(names) == 1
    assert names != {"ann"}
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_the_file_with_names_goes_when_it_is_dropped(tmp_path: Path) -> None:
    folder = ArchiveFolder(tmp_path / "archive", tmp_path)
    named = Path(written(folder).file)
    nobody = written(folder, is_pseudonymous=True)
    assert named.exists()
    folder.drop_names(nobody)
    assert not named.exists()
    assert folder.is_whole(nobody)
    folder.drop_names(nobody)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file")
    folder = ArchiveFolder(tmp_path / "archive", tmp_path)
    with pytest.raises(LedgerUnavailable, match="archive_folder") as refused:
        written(folder)
    assert refused.value.facts["field"] == "archive_folder"


@pytest.mark.parametrize("content", [b"", b"short"])
def test_what_is_no_key_makes_no_pseudonyms(tmp_path: Path, content: bytes) -> None:
    """With a key that anybody can guess, names can be tried."""
    (tmp_path / KEY_FILE).write_bytes(content)
    folder = ArchiveFolder(tmp_path / "archive", tmp_path)
    with pytest.raises(LedgerUnavailable, match=r"pseudonyms\.key is no key"):
        written(folder, is_pseudonymous=True)
