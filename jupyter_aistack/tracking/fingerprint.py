"""Fingerprints: which code and which data a run used, so that it can be told apart and
repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

WHOLE_BYTES = 64 << 20
"""Files are hashed whole up to this size in all; beyond it, their ends and times stand
for the rest.
"""

END_BYTES = 1 << 20
MAX_FILES = 10_000
MAX_ROWS = 1_000_000
GIT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class DataFingerprint:
    """One input of a run.

    Attributes:
        name: what the user calls it.
        digest: hash of the content, 36 characters at most; equal data give an equal
            digest.
        is_exact: all of the content went into the digest; else a bounded part of it,
            with sizes and times.
        rows: number of rows; None when not known without reading everything.
        schema: type by column name.
        source_type, source: kind and place, for MLflow's list of datasets.
        size_bytes: size on disk or in memory; None when not known.
    """

    name: str
    digest: str
    is_exact: bool
    source_type: str
    source: str
    rows: int | None = None
    schema: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None

    def schema_json(self) -> str:
        """The columns, as JSON that stays below what MLflow takes."""
        columns = list(self.schema.items())
        return json.dumps({"columns": len(columns), "types": dict(columns[:1000])})

    def profile_json(self) -> str:
        """The figures, as JSON."""
        figures = {
            "num_rows": self.rows,
            "num_columns": len(self.schema),
            "size_bytes": self.size_bytes,
        }
        return json.dumps({**figures, "digest_is_exact": self.is_exact})


def data_fingerprint(name: str, data: Any) -> DataFingerprint:
    """The fingerprint of a frame (pandas or Dask), a file, or a folder of files.

    Raises:
        InvalidRequest: it is none of these, or the path does not exist.
    """
    if isinstance(data, (str, os.PathLike)):
        return _of_path(name, Path(data))
    if hasattr(data, "dtypes") and hasattr(data, "npartitions"):
        return _of_dask(name, data)
    if hasattr(data, "dtypes") and hasattr(data, "columns"):
        return _of_frame(name, data)
    raise InvalidRequest(
        f"data {name}: expected a data frame, or the path of a file or folder, got {type(data).__name__}",
        field="data",
    )


def _of_path(name: str, path: Path) -> DataFingerprint:
    if not path.exists():
        raise InvalidRequest(
            f"data {name}: there is no file or folder {path}", field="data"
        )
    all_files = _files(path)
    files = all_files[:MAX_FILES]
    size = sum(file.stat().st_size for file in files)
    is_whole = size <= WHOLE_BYTES
    digest = hashlib.sha256()
    for file in files:
        label = file.relative_to(path).as_posix() if path.is_dir() else ""
        _add_file(digest, file, label, is_whole)
    is_all = len(all_files) == len(files)
    if not is_all:  # at least how many there are shows in the digest
        digest.update(f"of {len(all_files)}".encode())
    tables = [file for file in files if file.suffix in (".parquet", ".pq")]
    rows, schema = _parquet_shape(tables)
    source = json.dumps({"uri": path.resolve().as_uri(), "files": len(all_files)})
    return DataFingerprint(
        name=name,
        digest=_short(digest),
        is_exact=is_whole and is_all,
        source_type="local",
        source=source,
        rows=rows if is_all else None,
        schema=schema,
        size_bytes=size if is_all else None,
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _add_file(digest: Any, file: Path, label: str, is_whole: bool) -> None:
    stat = file.stat()
    digest.update(f"{label}\0{stat.st_size}\0".encode())
    with file.open("rb") as opened:
        if is_whole:
            for block in iter(lambda: opened.read(END_BYTES), b""):
                digest.update(block)
            return
        digest.update(opened.read(END_BYTES))
        opened.seek(max(0, stat.st_size - END_BYTES))
        digest.update(opened.read(END_BYTES))
        digest.update(str(stat.st_mtime_ns).encode())


def _parquet_shape(files: list[Path]) -> tuple[int | None, dict[str, str]]:
    """Rows and columns from the footers alone; unknown where there is no Parquet or
    nothing to read it with.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        return None, {}
    if not files:
        return None, {}
    try:
        footers = [parquet.ParquetFile(file) for file in files]
        columns = footers[0].schema_arrow
        rows = sum(footer.metadata.num_rows for footer in footers)
    except (ArrowException, OSError):  # the suffix promised more than the content holds
        return None, {}
    return rows, {column.name: str(column.type) for column in columns}


def _of_frame(name: str, frame: Any) -> DataFingerprint:
    step = -(-len(frame) // MAX_ROWS) or 1
    digest = hashlib.sha256(f"{len(frame)}\0{step}".encode())
    for column, kind in frame.dtypes.items():
        digest.update(f"{column}\0{kind}\0".encode())
    digest.update(_row_hashes(frame.iloc[::step]))
    return DataFingerprint(
        name=name,
        digest=_short(digest),
        is_exact=step == 1,
        source_type="code",
        source=json.dumps({"kind": "pandas.DataFrame"}),
        rows=len(frame),
        schema={str(column): str(kind) for column, kind in frame.dtypes.items()},
        size_bytes=int(frame.memory_usage().sum()),
    )


def _row_hashes(frame: Any) -> bytes:
    from pandas.util import hash_pandas_object

    try:
        hashes = hash_pandas_object(frame)
    except TypeError:  # lists and dicts in cells cannot be hashed; their text can
        hashes = hash_pandas_object(frame.astype(str))
    return bytes(hashes.to_numpy().tobytes())


def _of_dask(name: str, frame: Any) -> DataFingerprint:
    """By the recipe, which Dask names by its content: nothing is computed."""
    recipe = getattr(frame, "_name", "") or str(frame)
    return DataFingerprint(
        name=name,
        digest=_short(hashlib.sha256(recipe.encode())),
        is_exact=False,
        source_type="code",
        source=json.dumps({"kind": "dask.DataFrame", "partitions": frame.npartitions}),
        schema={str(column): str(kind) for column, kind in frame.dtypes.items()},
    )


def _short(digest: Any) -> str:
    return str(digest.hexdigest())[:32]


def code_tags(label: str = "") -> dict[str, str]:
    """Which code is running: the commit, whether files differ from it, the notebook,
    and a hash of the cells.

    Args:
        label: what the Jupyter server calls the notebook now; empty where none does.
    """
    tags: dict[str, str] = {}
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        changed = _git("status", "--porcelain", "--untracked-files=no")
        is_dirty = "unknown" if changed is None else str(bool(changed)).lower()
        tags["aistack.code.dirty"] = is_dirty
    notebook = notebook_tags(label)
    if notebook:
        tags |= notebook
    elif sys.argv and sys.argv[0]:
        tags |= {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
    cells = list(_cells())
    if cells:
        tags["aistack.code.cells"] = str(len(cells))
        digest = hashlib.sha256("\0".join(cells).encode())
        tags["aistack.code.cells_sha256"] = digest.hexdigest()
    return tags


def notebook_tags(label: str = "") -> dict[str, str]:
    """The notebook that is running, under its name of now; nothing outside one. For
    `label` see :func:`code_tags`.
    """
    path = _notebook_path(label, os.environ.get("JPY_SESSION_NAME", ""))
    if not path:
        return {}
    return {
        "mlflow.source.name": path,
        "mlflow.source.type": "NOTEBOOK",
        "aistack.notebook": Path(path).name,
    }


def _notebook_path(label: str, first_path: str) -> str:
    """Where the notebook is.

    Args:
        label: its path in the server, from the server's root.
        first_path: where it was when its kernel was started. A notebook that is renamed
            or moved keeps its kernel.
    """
    if (
        not label
        or Path(first_path).parts[-len(Path(label).parts) :] == Path(label).parts
    ):
        return first_path
    for folder in Path(first_path).parents:
        if (folder / label).is_file():
            return str(folder / label)
    return label


def _cells() -> Iterator[str]:
    """The cells run so far, the running cell included; none outside IPython, which is
    not imported for this.
    """
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        yield from (cell for cell in shell.user_ns.get("In", ()) if cell)


def _git(*arguments: str) -> str | None:
    """git's answer about the working folder; None without git, outside a repository, or
    when it takes too long.
    """
    try:
        finished = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()
