from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.compute.data.batches import ShardReader
from jupyter_aistack.compute.data.shards import Shard, ShardPart, cut, plan_shards
from jupyter_aistack.exceptions import TrainingError

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 8))
def test_every_rank_gets_equally_many_rows_and_none_twice(
    sizes: list[int], ranks: int
) -> None:
    parts = [
        ShardPart(start=0, stop=rows, path="file", group=group)
        for group, rows in enumerate(sizes)
    ]
    shares = cut(parts, ranks)
    assert [sum(part.rows for part in share) for share in shares] == [
        sum(sizes) // ranks
    ] * ranks
    rows = [
        (part.group, row)
        for share in shares
        for part in share
        for row in range(part.start, part.stop)
    ]
    assert len(rows) == len(set(rows))
    assert all(row < sizes[group] for group, row in rows)


def read(shard: Shard, epoch: int = 0, **options: object) -> list[torch.Tensor]:
    options = {"size": 64, "features": ["row"], **options}
    return list(ShardReader(shard, seed=5, device=CPU).batches(epoch, **options))  # type: ignore[arg-type]


def test_a_table_is_read_whole_in_equal_batches(table: Path, tmp_path: Path) -> None:
    shards = plan_shards(table, 2, tmp_path)
    batches = [read(shard) for shard in shards]
    assert (
        [len(batch) for batch in batches[0]]
        == [len(batch) for batch in batches[1]]
        == [64] * 7 + [53]
    )
    rows = torch.cat([*batches[0], *batches[1]]).flatten().int().tolist()
    assert sorted(rows) == list(range(1002))


def test_the_order_changes_with_the_epoch_and_nothing_else(
    table: Path, tmp_path: Path
) -> None:
    (shard,) = plan_shards(table, 1, tmp_path)
    first, again, next_epoch = read(shard), read(shard), read(shard, epoch=1)
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(next_epoch))
    assert sorted(torch.cat(first).tolist()) == sorted(torch.cat(next_epoch).tolist())


@pytest.mark.parametrize("skip", [1, 3, 15, 16])
def test_taking_up_in_the_middle_gives_exactly_the_rest(
    table: Path, tmp_path: Path, skip: int
) -> None:
    (shard,) = plan_shards(table, 1, tmp_path)
    whole, rest = read(shard, epoch=3), read(shard, epoch=3, skip=skip)
    assert len(rest) == len(whole) - skip
    assert all(torch.equal(a, b) for a, b in zip(whole[skip:], rest, strict=True))


def test_a_label_is_handed_out_apart_and_columns_keep_their_order(
    table: Path, tmp_path: Path
) -> None:
    (shard,) = plan_shards(table, 1, tmp_path)
    for x, y in read(shard, features=["double", "row"], label="is_odd"):
        assert torch.equal(x[:, 0], x[:, 1] * 2)
        assert torch.equal(y, x[:, 1] % 2)
        assert x.dtype == y.dtype == torch.float32


def test_features_are_all_columns_but_the_label_unless_named(
    table: Path, tmp_path: Path
) -> None:
    (shard,) = plan_shards(table, 1, tmp_path)
    x, _ = read(shard, features=None, label="is_odd")[0]
    assert x.shape == (64, 2)


def test_arrays_keep_their_types_and_stay_together(tmp_path: Path) -> None:
    data = {"x": np.arange(20.0).reshape(10, 2), "y": torch.arange(10)}
    shards = plan_shards(data, 3, tmp_path)
    batches = [
        batch for shard in shards for batch in read(shard, size=2, features=None)
    ]
    assert [len(batch["y"]) for batch in batches] == [2, 1] * 3
    assert all(
        torch.equal(batch["x"][:, 0], batch["y"].double() * 2) for batch in batches
    )
    assert batches[0]["x"].dtype == torch.float64


def test_a_pandas_table_is_written_and_read(tmp_path: Path) -> None:
    (shard,) = plan_shards(pd.DataFrame({"row": [3.0, None, 1.0]}), 1, tmp_path)
    (batch,) = read(shard, shuffle=False)
    assert torch.equal(batch.isnan().flatten(), torch.tensor([False, True, False]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("/nowhere", "data: there is no Parquet file at /nowhere"),
        (3, "data: expected a Parquet folder, a DataFrame"),
        (
            {"x": np.zeros(3), "y": np.zeros(4)},
            "data: all arrays need the same number of rows",
        ),
        ({"x": np.zeros(1)}, "data: 1 rows are too few for 2 workers"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence(
    data: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=words):
        plan_shards(data, 2, tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(TrainingError, match=r"x\.parquet is not a Parquet file"):
        plan_shards(tmp_path, 1, tmp_path)


def test_columns_that_are_missing_or_text_are_named(tmp_path: Path) -> None:
    (shard,) = plan_shards(pd.DataFrame({"row": [1.0], "carrier": ["UA"]}), 1, tmp_path)
    with pytest.raises(
        TrainingError, match="there is no column 'dest'; there is row, carrier"
    ):
        read(shard, features=["dest"])
    with pytest.raises(
        TrainingError, match=r"column 'carrier' holds .*string, not numbers"
    ):
        read(shard, features=None)
