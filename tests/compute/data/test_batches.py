"""Batches that a rank reads of its shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from jupyter_aistack.compute.data.shards import plan_shards
from tests.fakes.batches import read


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
