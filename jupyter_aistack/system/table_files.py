"""Tables as files: Parquet where pyarrow is installed, else CSV.

A file is written whole or not at all, for its owner alone. What is read back is what was
written: text, numbers, flags and None; in CSV, None is an empty field and numbers are
read as the columns say.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import PRIVATE, replacing

CHUNK = 1 << 20
SUFFIXES = (".parquet", ".csv")
Row = Mapping[str, object]


def suffix() -> str:
    """How the name of a table that is written here ends."""
    return SUFFIXES[0 if importlib.util.find_spec("pyarrow") else 1]


def write_table(path: Path, rows: Sequence[Row]) -> str:
    """Write rows, which all have the same columns, as the name's ending says.

    Returns:
        The file's SHA-256.

    Raises:
        OSError: it cannot be written; nothing is there, or what was before.
    """
    with replacing(path, suffix=path.suffix, is_durable=True) as part:
        part.chmod(PRIVATE)
        if path.suffix == ".parquet":
            _write_parquet(part, rows)
        else:
            _write_csv(part, rows)
        return file_digest(part)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write_table` has written.

    Raises:
        OSError, ValueError: it is not there, or is no such file.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return list(_read_csv(path))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file. Raises `OSError`."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([dict(row) for row in rows])
    pyarrow.parquet.write_table(table, path)


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file") from error
    return rows


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0].keys() if rows else ())
        for row in rows:
            writer.writerow([_cell_text(value) for value in row.values()])


def _cell_text(value: object) -> str:
    """A value as JSON, so that text that looks like a number stays text; None is an
    empty field.
    """
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False)


def _read_csv(path: Path) -> Iterable[dict[str, Any]]:
    csv.field_size_limit(CHUNK << 4)
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        for line in lines:
            values = [json.loads(text) if text else None for text in line]
            yield dict(zip(names, values, strict=True))
