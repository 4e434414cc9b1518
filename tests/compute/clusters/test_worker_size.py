"""How large a worker is, or would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.client.client import Client, connect
from jupyter_aistack.compute.clusters.worker_leases import WorkerLeases
from jupyter_aistack.compute.clusters.worker_size import (
    WorkerSize,
    expected_size,
    told_size,
)
from jupyter_aistack.exceptions import ClusterError
from jupyter_aistack.system.memory import total_bytes

GiB = 1 << 30
GPUS = "simulated:2xH100-80GB"


@pytest.fixture
def gpus(own_ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client of a host with two simulated GPUs."""
    from jupyter_aistack.client import client

    monkeypatch.setenv("AISTACK_PROVIDERS", GPUS)
    monkeypatch.setattr(client, "_connected", None)
    return connect()


def leases(client: Client, spec: str) -> WorkerLeases:
    return WorkerLeases(client, spec, queue="", timeout=None, cluster="c")


def test_a_worker_on_a_gpu_has_one_thread_and_its_share_of_the_hosts_memory(
    gpus: Client,
) -> None:
    size = expected_size(leases(gpus, "1/2"), None, {})
    assert size == WorkerSize(threads=1, memory_bytes=int(total_bytes() * 0.25))


def test_what_the_user_says_of_workers_goes_before(gpus: Client) -> None:
    nanny: dict[str, Any] = {"memory_limit": "2GiB", "nthreads": 3}
    assert expected_size(leases(gpus, "1/2"), 2, nanny) == WorkerSize(
        threads=3, memory_bytes=2 * GiB
    )
    assert expected_size(leases(gpus, "1/2"), 2, {}).threads == 2


def test_a_slice_that_the_host_could_never_hold_has_no_size(gpus: Client) -> None:
    with pytest.raises(ClusterError, match="how large a worker would be is not known"):
        expected_size(leases(gpus, "500GiB"), None, {})


def test_a_worker_that_runs_has_the_size_it_told() -> None:
    told = {"nthreads": 4, "memory_limit": GiB}
    assert told_size(told) == WorkerSize(threads=4, memory_bytes=GiB)
    assert told_size({"nthreads": 4, "memory_limit": 0}) is None
