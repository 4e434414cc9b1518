"""The cluster that training runs on, started once per module, and data for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.clusters.conftest import cluster, cpu_host

__all__ = ["cluster", "cpu_host"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Parquet folder of 1,003 rows in files and row groups of uneven sizes: ``row``,
    ``double`` and ``is_odd``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "table"
    folder.mkdir()
    row = np.arange(1003)
    for number, (start, stop, group) in enumerate(
        [(0, 500, 120), (500, 510, 10), (510, 1003, 400)]
    ):
        part = row[start:stop]
        columns = {"row": part, "double": part * 2.0, "is_odd": part % 2 == 1}
        pq.write_table(
            pa.table(columns), folder / f"part.{number}.parquet", row_group_size=group
        )
    return folder
