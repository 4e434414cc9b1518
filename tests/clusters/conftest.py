"""A cluster of two workers on CPU slices, started once per module: it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
