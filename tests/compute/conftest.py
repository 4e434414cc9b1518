"""A cluster of two workers on CPU slices, started once per module since it takes
seconds, and data to train on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jupyter_aistack import Cluster
from jupyter_aistack.client import client


@pytest.fixture(scope="module")
def cpu_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This process leases from its own CPU, with a ledger of its own; the ledger's
    folder.
    """
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AISTACK_LEDGER", f"sqlite:///{folder / 'ledger.sqlite'}")
        patch.setenv("AISTACK_PROVIDERS", "cpu")
        patch.delenv("AISTACK_SOCKET", raising=False)
        patch.setattr(client, "_connected", None)
        mine = client.connect()
        yield folder
        mine.close()


@pytest.fixture(scope="module")
def cluster(cpu_host: Path) -> Iterator[Cluster]:
    """Two workers on a quarter of the CPU each."""
    with Cluster(2, "cpu:1/4") as cluster:
        yield cluster


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
