from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.compute.clusters.worker_plugins import RMMCeiling, SliceGuard
from jupyter_aistack.compute.clusters.worker_spec import (
    SPILL_SHARE,
    check_nanny,
    nanny_options,
    withheld,
)
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.exceptions import ClusterError
from jupyter_aistack.providers.amd.visibility import VISIBILITY as AMD
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY as NVIDIA

GiB = 1 << 30


def gpu_slice(kind: SliceKind = SliceKind.SHARE, memory: int = 20 * GiB) -> Slice:
    uuid = "MIG-1" if kind is SliceKind.MIG else "GPU-1"
    return Slice(
        device_id="GPU-1",
        kind=kind,
        fraction=Fraction(1, 4),
        memory_bytes=memory,
        uuid=uuid,
    )


CPU_SLICE = Slice(
    device_id="CPU-box",
    kind=SliceKind.CPU,
    fraction=Fraction(1, 2),
    memory_bytes=8 * GiB,
    cores=(2, 3),
)


def test_a_cpu_worker_has_a_thread_per_core_and_the_slices_memory() -> None:
    prepared = Preparation(
        environment={"OMP_NUM_THREADS": "2"},
        cores=(2, 3),
        memory_limit_bytes=8 * GiB,
        enforced_by="C",
    )
    options = nanny_options([CPU_SLICE], prepared, host_memory_bytes=1)
    assert (options["nthreads"], options["memory_limit"]) == (2, 8 * GiB)
    assert options["env"] == {"OMP_NUM_THREADS": "2", **NVIDIA.hidden}
    assert options["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert options["config"]["distributed"]["diagnostics"]["nvml"] is False
    assert options["config"]["distributed"]["worker"]["memory"], (
        "the rest of Dask's settings must stay"
    )


def test_threads_may_be_chosen() -> None:
    options = nanny_options(
        [CPU_SLICE],
        Preparation(cores=(2, 3), enforced_by="C"),
        host_memory_bytes=1,
        threads=5,
    )
    assert options["nthreads"] == 5


@pytest.mark.parametrize(
    "kind", [SliceKind.GPU, SliceKind.MIG, SliceKind.SHARE, SliceKind.MPS]
)
def test_limits_of_a_gpu_worker_are_bytes_of_its_slice(kind: SliceKind) -> None:
    pytest.importorskip("dask_cuda")
    slice_ = gpu_slice(kind)
    prepared = Preparation(
        environment={"CUDA_VISIBLE_DEVICES": slice_.uuid},
        enforced_by="L0",
        visibility=(NVIDIA,),
    )
    options = nanny_options([slice_], prepared, host_memory_bytes=7 * GiB)
    assert options["data"][1] == {
        "device_memory_limit": int(20 * GiB * SPILL_SHARE),
        "memory_limit": 7 * GiB,
    }
    assert options["memory_limit"] == 7 * GiB
    assert options["env"] == {"CUDA_VISIBLE_DEVICES": slice_.uuid}
    assert options["resources"] == {"GPU": 0.25}
    assert options["preload"] == ["dask_cuda.initialize"]


def test_a_simulated_slice_gets_a_plain_worker_with_host_memory() -> None:
    prepared = Preparation(
        environment={"CUDA_VISIBLE_DEVICES": "GPU-1"}, enforced_by="simulated"
    )
    options = nanny_options([gpu_slice()], prepared, host_memory_bytes=3 * GiB)
    assert options["memory_limit"] == 3 * GiB
    assert options["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "preload" not in options


def test_rmm_gets_a_ceiling_only_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("dask_cuda")
    prepared = Preparation(enforced_by="L4", visibility=(NVIDIA,))
    monkeypatch.setattr(
        "jupyter_aistack.compute.clusters.worker_spec.find_spec", lambda name: None
    )
    assert [
        type(p)
        for p in nanny_options([gpu_slice()], prepared, host_memory_bytes=1)["plugins"]
    ] == [SliceGuard]
    monkeypatch.setattr(
        "jupyter_aistack.compute.clusters.worker_spec.find_spec", lambda name: object()
    )
    _, ceiling = nanny_options([gpu_slice()], prepared, host_memory_bytes=1)["plugins"]
    assert isinstance(ceiling, RMMCeiling)
    assert ceiling.device_bytes == 20 * GiB


def test_limits_are_whole_bytes_of_the_gpu_alone_and_rmm_keeps_within_the_shares_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("dask_cuda")
    monkeypatch.setattr(
        "jupyter_aistack.compute.clusters.worker_spec.find_spec", lambda name: object()
    )
    pool = 20 * GiB - 400 * (1 << 20)
    prepared = Preparation(
        environment={"AISTACK_RMM_MAXIMUM_POOL_SIZE": str(pool)},
        enforced_by="L0",
        visibility=(NVIDIA,),
    )
    options = nanny_options([gpu_slice(), CPU_SLICE], prepared, host_memory_bytes=1)
    assert options["plugins"][1].device_bytes == pool
    assert options["data"][1]["device_memory_limit"] == int(20 * GiB * SPILL_SHARE)
    assert options["resources"] == {"GPU": 0.25}
    assert all(
        type(limit) is int
        for limit in (*options["data"][1].values(), options["plugins"][1].device_bytes)
    )


@pytest.mark.parametrize("kind", [SliceKind.MIG, SliceKind.SHARE, SliceKind.MPS])
def test_parts_of_gpus_speak_tcp(kind: SliceKind) -> None:
    prepared = Preparation(enforced_by="L4")
    for wanted in ({}, {"protocol": "tcp"}, {"protocol": "tls://"}):
        check_nanny([gpu_slice(kind)], prepared, wanted)
    with pytest.raises(
        ClusterError, match=r"protocol: ucx needs whole GPUs; leave it out \(tcp\)"
    ):
        check_nanny([gpu_slice(kind)], prepared, {"protocol": "ucx"})
    check_nanny([gpu_slice(SliceKind.GPU)], prepared, {"protocol": "ucx"})
    check_nanny(
        [gpu_slice(kind)], Preparation(enforced_by="simulated"), {"protocol": "ucx"}
    )


def test_a_worker_on_an_amd_gpu_is_a_plain_one_that_sees_it() -> None:
    environment = {
        "ROCR_VISIBLE_DEVICES": "GPU-a0",
        "HIP_VISIBLE_DEVICES": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    prepared = Preparation(
        environment=environment, enforced_by="whole", visibility=(AMD,)
    )
    options = nanny_options(
        [gpu_slice(SliceKind.GPU)], prepared, host_memory_bytes=7 * GiB
    )
    assert (options["env"], options["memory_limit"], options["nthreads"]) == (
        environment,
        7 * GiB,
        1,
    )
    assert not {"data", "preload"} & options.keys()


def test_what_a_worker_is_given_itself_stands_and_a_daemon_of_the_hosts_is_left_to_it() -> (
    None
):
    server = {"CUDA_MPS_PIPE_DIRECTORY": "/run/user/1/aistack-mps/x/p"}
    assert withheld({**server, "AISTACK_LEASE": "l-1"}, {}) == {
        "CUDA_MPS_PIPE_DIRECTORY": "/dev/null"
    }
    assert withheld({**server, "AISTACK_LEASE": "l-1"}, server) == {}
    assert withheld(server, {}) == {}
