"""Which rows each rank reads: cut here, in the notebook; read in the ranks (see
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
        pieces: in order; nothing when there is no data.
        arrays: files of the arrays by name; empty for a table.
    """

    pieces: tuple[ShardPart, ...] = ()
    arrays: Mapping[str, str] | None = None

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Shard:
        return cls(
            pieces=tuple(ShardPart(**piece) for piece in data["pieces"]),
            arrays=data["arrays"],
        )


def cut(pieces: Sequence[ShardPart], ranks: int) -> list[tuple[ShardPart, ...]]:
    """The pieces in `ranks` equal runs of rows; at most ``ranks - 1`` rows at the end
    are left over.
    """
    share = sum(piece.rows for piece in pieces) // ranks
    left = iter(pieces)
    shares: list[tuple[ShardPart, ...]] = []
    rest: ShardPart | None = None
    for _ in range(ranks):
        taken, rest = _take(share, left, rest)
        shares.append(tuple(taken))
    return shares


def _take(
    rows: int, left: Iterator[ShardPart], rest: ShardPart | None
) -> tuple[list[ShardPart], ShardPart | None]:
    taken: list[ShardPart] = []
    while rows:
        piece = rest if rest is not None else next(left)
        part = replace(piece, stop=min(piece.stop, piece.start + rows))
        rest = replace(piece, start=part.stop) if part.stop < piece.stop else None
        taken.append(part)
        rows -= part.rows
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
    if isinstance(data, Mapping):
        pieces, files = _write_arrays(data, folder)
        return [
            Shard(pieces=share, arrays=files) for share in _cut_checked(pieces, ranks)
        ]
    path = data if isinstance(data, (str, Path)) else _write_table(data, folder)
    return [
        Shard(pieces=share) for share in _cut_checked(_row_groups(Path(path)), ranks)
    ]


def _cut_checked(
    pieces: Sequence[ShardPart], ranks: int
) -> list[tuple[ShardPart, ...]]:
    rows = sum(piece.rows for piece in pieces)
    if rows < ranks:
        raise TrainingError(
            f"data: {rows} rows are too few for {ranks} workers", field="data"
        )
    return cut(pieces, ranks)


def _row_groups(path: Path) -> list[ShardPart]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.exists() for file in files):
        raise TrainingError(f"data: there is no Parquet file at {path}", field="data")
    pieces = []
    for file in files:
        try:
            metadata = ParquetFile(file).metadata
        except ArrowInvalid as error:
            raise TrainingError(
                f"data: {file} is not a Parquet file ({error})", field="data"
            ) from error
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            pieces.append(
                ShardPart(path=str(file.resolve()), group=group, start=0, stop=rows)
            )
    return [piece for piece in pieces if piece.rows]


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

    lengths = {name: len(array) for name, array in data.items()}
    if len(set(lengths.values())) != 1:
        raise TrainingError(
            f"data: all arrays need the same number of rows, got {lengths}",
            field="data",
        )
    files = {}
    for number, (name, array) in enumerate(data.items()):
        file = folder / f"array-{number}.npy"
        np.save(
            file,
            np.ascontiguousarray(
                array.numpy(force=True) if hasattr(array, "numpy") else array
            ),
        )
        files[name] = str(file)
    return list(_blocks(next(iter(lengths.values())))), files


def _blocks(rows: int) -> Iterable[ShardPart]:
    return (
        ShardPart(start=start, stop=min(rows, start + BLOCK_ROWS))
        for start in range(0, rows, BLOCK_ROWS)
    )
