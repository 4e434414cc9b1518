"""Workers on GPU slices, with the real dask-cuda, on a fake driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jupyter_aistack.compute.clusters.worker_spec import SPILL_SHARE

if TYPE_CHECKING:
    from tests.fakes.nvml.plugin import FakeNVML

pytest.importorskip("dask_cuda")

GiB = 1 << 30
GPU, PARENT, MIG = (
    "GPU-a0000000-0000-0000-0000-1",
    "GPU-b0000000-0000-0000-0000-2",
    "MIG-c0000000-0000-0000-0000-3",
)
STATE = (
    f"gpu uuid={GPU} name=NVIDIA_H100 memory=85899345920 cc=9.0 cores=16896\n"
    f"gpu uuid={PARENT} name=NVIDIA_H200 memory=150754820096 cc=9.0 cores=16896 mig=1 noperm=1\n"
    f"mig gpu=1 uuid={MIG} gi=1 ci=0 slot=0 slices=1 cslices=1 memory_mb=16384 sms=16 profile=1g.18gb\n"
)

# Runs in a process of its own: the loader finds the fake library only at a process's
# start.
SETUP = """
import os
from distributed import Client
from jupyter_aistack import Cluster
from jupyter_aistack.client import client

def look(dask_worker):
    store = dask_worker.data
    return {
        "visible": os.environ["CUDA_VISIBLE_DEVICES"],
        "store": type(store).__name__,
        "device_bytes": store.device_buffer.fast.n if hasattr(store, "device_buffer") else None,
        "resources": dict(dask_worker.state.total_resources),
        "lease": os.environ["AISTACK_LEASE"],
    }

def report(spec, workers):
    with Cluster(workers, spec, timeout=60) as cluster, Client(cluster, set_as_default=False) as dask:
        leases = {lease["id"]: lease for lease in client.connect().leases()}
        return list(dask.run(look).values()), leases, repr(cluster)
"""


@pytest.fixture
def gpu_box(
    fake_nvml: FakeNVML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> object:
    monkeypatch.setenv("AISTACK_PROVIDERS", "gpu")
    monkeypatch.setenv(
        "DASK_CUDA_TEST_SINGLE_GPU", "1"
    )  # there is no CUDA context to be had, and no need for one
    return fake_nvml.python(STATE, SETUP)


def test_two_workers_share_one_gpu_with_limits_of_their_slices(gpu_box: object) -> None:
    seen, leases, shown = gpu_box("report('gpu:1/4', 2)")  # type: ignore[operator]
    assert len(leases) == 2
    for worker in seen:
        (slice_,) = leases[worker["lease"]]["slices"]
        assert worker["visible"] == slice_["uuid"] == GPU
        assert worker["store"] == "DeviceHostFile"
        assert (
            worker["device_bytes"]
            == int(slice_["memory_bytes"] * SPILL_SHARE)
            < 20 * GiB
        )
        assert worker["resources"] == {"GPU": 0.25}
    assert "framework caps (advisory)" in shown


def test_a_worker_on_mig_is_limited_by_the_instance_even_where_the_parent_may_not_be_asked(
    gpu_box: object,
) -> None:
    (worker,), leases, _ = gpu_box("report('1g.18gb', 1)")  # type: ignore[operator]
    assert worker["visible"] == MIG
    (slice_,) = leases[worker["lease"]]["slices"]
    assert (
        worker["device_bytes"] == int(slice_["memory_bytes"] * SPILL_SHARE) <= 16 * GiB
    )


def test_simulated_slices_get_plain_workers_and_say_so(
    fake_nvml: FakeNVML, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    seen, _, shown = fake_nvml.python(None, SETUP)("report('gpu:1/2', 2)")
    assert [worker["visible"] for worker in seen] == ["", ""]
    assert [worker["store"] for worker in seen] != ["DeviceHostFile"] * 2
    assert "simulated" in shown
