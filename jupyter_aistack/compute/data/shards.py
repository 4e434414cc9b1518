"""Which rows each rank reads: decided here, in the notebook; read in the ranks (see
`batches`).

Every rank gets the same number of rows, to the row, so that all take the same number of
steps: with uneven inputs DDP waits for ever for the rank that has finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import TrainingError

BLOCK_ROWS = 131_072
"""Rows that are read and shuffled together, where the data brings no row groups of its
own.
"""


@dataclass(frozen=True, kw_only=True)
class ShardPart:
    """A run of rows in one place.

    Attributes:
        start, stop: rows, counted within the row group, or over all rows for arrays.
        path: the Parquet file; empty for arrays.
        group: its row group.
    """

    start: int
    stop: int
    path: str = ""
    group: int = 0

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What one rank reads.

    Attributes:
        parts: in order; none when there is no data.
        arrays: files of the arrays by name; empty for a table.
    """

    parts: tuple[ShardPart, ...] = ()
    arrays: Mapping[str, str] | None = None

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Shard:
        return cls(
            parts=tuple(ShardPart(**part) for part in data["parts"]),
            arrays=data["arrays"],
        )


def cut(parts: Sequence[ShardPart], ranks: int) -> list[tuple[ShardPart, ...]]:
    """The parts in `ranks` equal runs of rows; at most ``ranks - 1`` rows at the end
    are left over.
    """
    rows_each = sum(part.rows for part in parts) // ranks
    unread = iter(parts)
    shares: list[tuple[ShardPart, ...]] = []
    rest: ShardPart | None = None
    for _ in range(ranks):
        share, rest = _take(rows_each, unread, rest)
        shares.append(tuple(share))
    return shares


def _take(
    rows: int, unread: Iterator[ShardPart], rest: ShardPart | None
) -> tuple[list[ShardPart], ShardPart | None]:
    """The next `rows` rows, beginning with `rest`, and what is over of the last part."""
    taken: list[ShardPart] = []
    while rows:
        part = rest if rest is not None else next(unread)
        stop = min(part.stop, part.start + rows)
        rest = replace(part, start=stop) if stop < part.stop else None
        taken.append(replace(part, stop=stop))
        rows -= stop - part.start
    return taken, rest


def plan_shards(data: Any, ranks: int, folder: Path) -> list[Shard]:
    """What each of `ranks` ranks reads of `data`.

    Args:
        data: the folder or file of a Parquet table; a Dask or pandas DataFrame (written
            to `folder` first, by the workers where it is Dask's); a dict of NumPy
            arrays or tensors of equal length; or None.
        ranks: how many.
        folder: where to put what must be written.

    Raises:
        TrainingError: naming ``data`` and what it must be.
    """
    if data is None:
        return [Shard() for _ in range(ranks)]
    files: dict[str, str] | None = None
    if isinstance(data, Mapping):
        parts, files = _write_arrays(data, folder)
    else:
        path = data if isinstance(data, (str, Path)) else _write_table(data, folder)
        parts = _row_groups(Path(path))
    shares = _shares(parts, ranks)
    return [Shard(parts=share, arrays=files) for share in shares]


def _shares(parts: Sequence[ShardPart], ranks: int) -> list[tuple[ShardPart, ...]]:
    """The parts by rank. Raises `TrainingError` when there is not a row for each."""
    rows = sum(part.rows for part in parts)
    if rows < ranks:
        raise TrainingError(
            f"data: {rows} rows are too few for {ranks} workers", field="data"
        )
    return cut(parts, ranks)


def _row_groups(path: Path) -> list[ShardPart]:
    """A part for each row group of a Parquet file, or of those in a folder."""
    files = [path] if path.exists() else []
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
    if not files:
        raise TrainingError(f"data: there is no Parquet file at {path}", field="data")
    parts = [part for file in files for part in _file_row_groups(file)]
    return [part for part in parts if part.rows]


def _file_row_groups(file: Path) -> list[ShardPart]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        metadata = ParquetFile(file).metadata
    except ArrowInvalid as error:
        raise TrainingError(
            f"data: {file} is not a Parquet file ({error})", field="data"
        ) from error
    path = str(file.resolve())
    return [
        ShardPart(
            path=path, group=group, start=0, stop=metadata.row_group(group).num_rows
        )
        for group in range(metadata.num_row_groups)
    ]


def _write_table(data: Any, folder: Path) -> Path:
    if not hasattr(data, "to_parquet"):
        raise TrainingError(
            f"data: expected a Parquet folder, a DataFrame (Dask, pandas) or a dict of arrays, not {type(data)}",
            field="data",
        )
    target = folder / "data"
    if hasattr(data, "npartitions"):
        data.to_parquet(target, write_index=False)
    else:
        target.mkdir()
        data.to_parquet(
            target / "part.0.parquet", index=False, row_group_size=BLOCK_ROWS
        )
    return target


def _write_arrays(
    data: Mapping[str, Any], folder: Path
) -> tuple[list[ShardPart], dict[str, str]]:
    import numpy as np

    arrays = {name: _as_array(name, values) for name, values in data.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise TrainingError(
            f"data: expected arrays with the same number of rows, got {lengths}",
            field="data",
        )
    files = {}
    for number, (name, array) in enumerate(arrays.items()):
        file = folder / f"array-{number}.npy"
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        files[name] = str(file)
    rows = next(iter(lengths.values()))
    return list(_blocks(rows)), files


def _as_array(name: Any, values: Any) -> Any:
    """An array of numbers by its name.

    Raises:
        TrainingError: torch could not take it up in the ranks.
    """
    import numpy as np

    if not isinstance(name, str):
        raise TrainingError(
            f"data: expected names of arrays to be text, got {name!r}", field="data"
        )
    try:
        # A tensor may be on a GPU or need gradients.
        is_tensor = hasattr(values, "numpy")
        array = np.asarray(values.numpy(force=True) if is_tensor else values)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"data: array {name!r} is no array of NumPy's: {error}", field="data"
        ) from error
    if array.dtype.kind not in "fiubc" or not array.ndim:
        raise TrainingError(
            f"data: array {name!r} holds {array.dtype} in {array.ndim} dimensions; "
            "expected rows of numbers",
            field="data",
        )
    return array


def _blocks(rows: int) -> Iterable[ShardPart]:
    for start in range(0, rows, BLOCK_ROWS):
        yield ShardPart(start=start, stop=min(rows, start + BLOCK_ROWS))
