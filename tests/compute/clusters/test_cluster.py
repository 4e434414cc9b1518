from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from distributed import Client, Status

from jupyter_aistack import Cluster
from jupyter_aistack.client import client
from jupyter_aistack.config import load_settings
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    ClusterError,
    InvalidRequest,
    Unsatisfiable,
)
from tests.fakes.waiting import until, wait_until


def runs(process: psutil.Process) -> bool:
    """A zombie that nobody has collected yet has ended."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def lease_ids() -> set[str]:
    return {lease["id"] for lease in client.connect().leases()}


def test_each_worker_runs_on_a_lease_of_its_own(cluster: Cluster) -> None:
    with Client(cluster, set_as_default=False) as dask:
        seen = dask.run(
            lambda: (
                os.environ["AISTACK_LEASE"],
                os.getpid(),
                sorted(os.sched_getaffinity(0)),
                os.environ["OMP_NUM_THREADS"],
            )
        )
    leases = {lease["id"]: lease for lease in client.connect().leases()}
    assert {lease for lease, *_ in seen.values()} == set(leases)
    for name, pid, cores, threads in seen.values():
        lease = leases[name]
        assert lease["holder"]["kind"] == "worker"
        assert lease["holder"]["root_pid"] == pid
        assert lease["state"] == "active"
        assert [core for slice_ in lease["slices"] for core in slice_["cores"]] == cores
        assert int(threads) == len(cores)


def test_memory_and_threads_come_from_the_slice(cluster: Cluster) -> None:
    sizes = {
        slice_.memory_bytes for pieces in cluster.slices.values() for slice_ in pieces
    }
    workers = cluster.scheduler_info["workers"].values()
    assert {worker["memory_limit"] for worker in workers} == sizes
    assert {worker["nthreads"] for worker in workers} == {1}


def test_a_cpu_worker_reports_no_gpu(cluster: Cluster) -> None:
    with Client(cluster, set_as_default=False) as dask:
        seen = dask.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    assert set(seen.values()) == {""}
    assert not any(
        "gpu" in worker for worker in cluster.scheduler_info["workers"].values()
    )


def test_repr_names_worker_lease_and_enforcement(cluster: Cluster) -> None:
    text, html = repr(cluster), cluster._repr_html_()
    for lease in lease_ids():
        assert lease in text
        assert f"<td>{lease}</td>" in html
    assert f"at {cluster.scheduler_address}: 2 of 2 workers on cpu:1/4 each" in text
    assert "CPU affinity" in html


def test_scaling_down_gives_the_lease_back_and_up_takes_one(cluster: Cluster) -> None:
    before = lease_ids()
    cluster.scale(1)
    wait_until(
        lambda: len(lease_ids()) == 1 and len(cluster.scheduler_info["workers"]) == 1
    )
    cluster.scale(2)
    wait_until(
        lambda: sum(worker.stage == "ready" for worker in cluster.workers.values()) == 2
    )
    assert len(lease_ids()) == 2
    assert len(lease_ids() & before) == 1


def test_scaling_beyond_the_host_says_why_and_keeps_what_there_is(
    cluster: Cluster,
) -> None:
    cluster.scale(9)
    wait_until(lambda: cluster.problem)
    assert "workers got their slice of cpu:1/4; the next one waits: " in cluster.problem
    assert cluster.problem in repr(cluster)
    cluster.scale(2)
    wait_until(
        lambda: len(lease_ids()) == 2 and len(cluster.scheduler_info["workers"]) == 2
    )
    assert client.connect().queue() == []


def test_a_worker_that_dies_is_replaced_on_the_same_lease(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    before, lease = worker.pid, worker.lease.id
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: worker.pid not in (None, before))

    def bound_pid() -> int:
        return next(
            result["holder"]["root_pid"]
            for result in client.connect().leases()
            if result["id"] == lease
        )

    wait_until(lambda: bound_pid() == worker.pid)
    wait_until(lambda: len(cluster.scheduler_info["workers"]) == 2)


def test_a_worker_whose_lease_has_ended_is_closed_and_said_so(cluster: Cluster) -> None:
    lost = cluster.workers[0]
    process = psutil.Process(lost.pid)
    client.connect().call("release", lease_id=lost.lease.id)
    wait_until(lambda: not runs(process))
    assert f"its lease {lost.lease.id} has ended" in cluster.problem
    assert cluster.problem in repr(cluster)
    assert len(lease_ids()) == 1
    wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1)
    cluster.scale(2)
    wait_until(
        lambda: len(lease_ids()) == 2 and len(cluster.scheduler_info["workers"]) == 2
    )
    wait_until(lambda: not cluster.problem)


def test_more_workers_than_fit_is_one_error_that_counts_and_leaves_nothing(
    cluster: Cluster,
) -> None:
    before = lease_ids()
    with pytest.raises(
        ClusterError,
        match=r"^1 of 2 workers got their slice of cpu:1/2; the next one waits: ",
    ) as caught:
        Cluster(2, "cpu:1/2")
    assert isinstance(caught.value.__cause__, AcquireTimeout)
    assert caught.value.facts == {"granted": 1, "wanted": 2}
    assert lease_ids() == before
    assert client.connect().queue() == []


def test_what_the_host_could_never_hold_is_refused_as_such(cpu_host: Path) -> None:
    before = lease_ids()
    with pytest.raises(Unsatisfiable):
        Cluster(1, "4096GiB")
    assert lease_ids() == before


@pytest.mark.parametrize("workers", [-1, 1.5, True, "2", math.inf, math.nan])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: object) -> None:
    with pytest.raises(InvalidRequest, match="workers: expected a whole number"):
        Cluster(workers)  # type: ignore[arg-type]


async def test_await_and_async_with_start_and_end_a_cluster(cpu_host: Path) -> None:
    before = lease_ids()
    async with Cluster(1, "cpu:1/4", asynchronous=True, timeout=60) as cluster:
        async with Client(cluster, asynchronous=True, set_as_default=False) as dask:
            assert await dask.submit(lambda x: x + 1, 1) == 2
        assert len(lease_ids() - before) == 1
    assert lease_ids() == before


async def test_a_cluster_that_runs_already_can_be_awaited(cluster: Cluster) -> None:
    assert await cluster is cluster


async def test_a_cancelled_start_leaves_nothing(cpu_host: Path) -> None:
    before = lease_ids()
    children = set(psutil.Process().children(recursive=True))
    cluster = Cluster(1, "cpu:1/4", asynchronous=True, timeout=60)
    start = asyncio.ensure_future(_entered(cluster))
    await until(lambda: any(worker.pid for worker in list(cluster._created)), 60)
    for _ in range(2):
        start.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await start
    assert cluster.status is Status.closed
    assert lease_ids() == before
    new = set(psutil.Process().children(recursive=True)) - children
    assert [process.cmdline() for process in new if is_worker(process)] == []


async def _entered(cluster: Cluster) -> None:
    async with cluster:
        raise AssertionError("the start was cancelled")


def is_worker(process: psutil.Process) -> bool:
    return runs(process) and "resource_tracker" not in " ".join(process.cmdline())


def test_what_a_task_has_started_ends_with_its_worker(cpu_host: Path) -> None:
    with (
        Cluster(1, "cpu:1/4") as cluster,
        Client(cluster, set_as_default=False) as dask,
    ):
        pid = dask.submit(
            lambda: subprocess.Popen(["sleep", "600"], start_new_session=True).pid
        ).result(timeout=60)
        child = psutil.Process(pid)
        assert runs(child)
    assert not runs(child)


def test_a_stopped_worker_whose_lease_has_ended_is_closed(cpu_host: Path) -> None:
    with Cluster(1, "cpu:1/4") as cluster:
        lost = cluster.workers[0]
        process = psutil.Process(lost.pid)
        process.suspend()
        client.connect().call("release", lease_id=lost.lease.id)
        wait_until(lambda: not runs(process), 60)
        wait_until(lambda: f"its lease {lost.lease.id} has ended" in cluster.problem)


def test_no_worker_is_started_again_on_a_lease_that_has_ended(cpu_host: Path) -> None:
    with Cluster(1, "cpu:1/4") as cluster:
        lost = cluster.workers[0]
        process = psutil.Process(lost.pid)
        client.connect().call("release", lease_id=lost.lease.id)
        process.kill()
        wait_until(lambda: not runs(process))
        wait_until(lambda: cluster.problem)
        assert lost.pid is None
        assert lost.lease.id not in lease_ids()


def test_a_worker_that_does_not_start_says_why(cpu_host: Path) -> None:
    before = lease_ids()
    with pytest.raises(ClusterError, match=r"worker 0 did not start: .*no_such_module"):
        Cluster(1, "cpu:1/4", nanny={"preload": ["no_such_module"]})
    assert lease_ids() == before


def test_a_refusal_has_its_own_cause_and_no_circle(cpu_host: Path) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        Cluster(1, "4096GiB")
    assert caught.value.__cause__ is not caught.value


def test_progress_is_told_while_a_worker_waits(cluster: Cluster) -> None:
    told: list[str] = []
    with pytest.raises(ClusterError):
        Cluster(1, "cpu:3/4", timeout=2.5, progress=told.append)
    assert any("0 of 1 workers ready; worker 0 waits: " in line for line in told)


def test_workers_and_leases_end_with_a_killed_owner(
    tmp_path: Path, own_ledger: str
) -> None:
    environment = {**os.environ, "AISTACK_PROVIDERS": "cpu"}
    owner = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("owner.py"))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert owner.stdout is not None
    text = json.loads(owner.stdout.readline())
    try:
        workers = [psutil.Process(pid) for pid in text["workers"]]
        owner.kill()
        owner.wait()
        wait_until(lambda: not any(map(runs, workers)))
        broker = load_settings().build_broker()
        wait_until(lambda: not broker.cycle() and broker.leases() == ())
        broker.close()
    finally:
        os.kill(text["forked"], signal.SIGKILL)
        owner.stdout.close()


def test_adapting_takes_leases_for_work_and_gives_them_back_when_idle(
    cpu_host: Path,
) -> None:
    before = lease_ids()
    with (
        Cluster(0, "cpu:1/4") as cluster,
        Client(cluster, set_as_default=False) as dask,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="100ms", wait_count=2)
        assert (
            dask.submit(lambda: os.environ["AISTACK_LEASE"]).result(timeout=60)
            in lease_ids() - before
        )
        wait_until(lambda: lease_ids() == before)


def test_starting_workers_leaves_the_notebooks_own_thread_counts_alone(
    cpu_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Cluster(2, "cpu:1/4"):
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert "MKL_NUM_THREADS" not in os.environ


def test_a_worker_inherits_neither_caps_nor_the_way_to_a_server_from_its_notebooks_slice(
    cpu_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("LEASE", "l-notebook"),
        ("MEMORY_FRACTION", "0.1"),
        ("RMM_MAXIMUM_POOL_SIZE", "1024"),
    ):
        monkeypatch.setenv(f"AISTACK_{name}", value)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/user/1/aistack-mps/x/p")
    names = (
        "CUDA_MPS_PIPE_DIRECTORY",
        "AISTACK_MEMORY_FRACTION",
        "AISTACK_RMM_MAXIMUM_POOL_SIZE",
    )
    with (
        Cluster(1, "cpu:1/4") as cluster,
        Client(cluster, set_as_default=False) as dask,
    ):
        (seen,) = dask.run(lambda: [os.environ[name] for name in names]).values()
    assert seen == [os.devnull, "", ""]
