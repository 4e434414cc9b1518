"""Tables as files: what was written is read back."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.system.table_files import (
    SUFFIXES,
    file_digest,
    read_table,
    write_table,
)

ROWS: list[dict[str, Any]] = [
    {"id": "1", "count": 1, "at": 5.0, "is_on": True, "note": None, "text": ""},
    {
        "id": "a,\n\"'",
        "count": 2**53,
        "at": 0.1,
        "is_on": False,
        "note": "é",
        "text": "1",
    },
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"table{suffix}"
    digest = write_table(path, ROWS)
    assert read_table(path) == ROWS
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest() == file_digest(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_has_none(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"table{suffix}"
    write_table(path, [])
    assert read_table(path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_table_is_told_from_one(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"table{suffix}"
    path.write_text("id,count\nno,2\n")
    with pytest.raises(ValueError, match=r"is no Parquet file|Expecting value"):
        read_table(path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_table(tmp_path / "missing" / "table.csv", ROWS)
