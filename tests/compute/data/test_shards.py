from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.compute.data.shards import ShardPart, cut, plan_shards
from jupyter_aistack.exceptions import TrainingError
from tests.fakes.batches import read


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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("/nowhere", "data: there is no Parquet file at /nowhere"),
        (3, "data: expected a Parquet folder, a DataFrame"),
        (
            {"x": np.zeros(3), "y": np.zeros(4)},
            "data: expected arrays with the same number of rows, got {'x': 3, 'y': 4}",
        ),
        ({}, "data: expected arrays with the same number of rows, got {}"),
        ({0: np.zeros(3)}, "data: expected names of arrays to be text, got 0"),
        (
            {"x": np.array([object(), object()])},
            "data: array 'x' holds object in 1 dimensions; expected rows of numbers",
        ),
        ({"x": np.array(["a", "b"])}, "data: array 'x' holds <U1 in 1 dimensions"),
        ({"x": np.float64(3)}, "data: array 'x' holds float64 in 0 dimensions"),
        (
            {"x": torch.zeros(2, dtype=torch.bfloat16)},
            "data: array 'x' is no array of NumPy's: .*BFloat16",
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
