"""What users of Dask expect of any cluster, seen on Dask's own ``LocalCluster`` and on
ours, side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Adaptive, Client, LocalCluster, Security, SpecCluster, Status
from distributed.deploy.adaptive import Adaptive as AdaptiveClass

from jupyter_aistack import Cluster
from jupyter_aistack.exceptions import ClusterError, InvalidRequest
from tests.fakes.waiting import until, wait_until

Make = Callable[..., Any]
WORKERS = 2
KINDS = ("local", "leased")


def local(workers: int, **options: Any) -> SpecCluster:
    """Dask's own cluster, its workers threads of this process."""
    given = {"dashboard_address": None, "memory_limit": "1GiB", **options}
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, **{"processes": False, **given}
    )


def leased(workers: int, **options: Any) -> SpecCluster:
    """Ours, its workers processes on a quarter of the CPU each."""
    given: Any = {"dashboard_address": None, "progress": str, **options}
    return Cluster(workers, "cpu:1/4", **given)


MAKERS: dict[str, Make] = {"local": local, "leased": leased}


@pytest.fixture(scope="module", params=KINDS)
def make(request: pytest.FixtureRequest, cpu_host: Path) -> Make:
    """Makes clusters of one kind."""
    return MAKERS[request.param]


@pytest.fixture(scope="module")
def shared(make: Make) -> Iterator[SpecCluster]:
    """A cluster of two workers for all tests of its kind."""
    with make(WORKERS, name="shared", dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def pair(shared: SpecCluster) -> SpecCluster:
    """The shared cluster, with two workers whatever the test before has made of it."""
    if shared._adaptive is not None:
        shared._adaptive.stop()
    come_to(shared, WORKERS)
    return shared


@pytest.fixture
def client(pair: SpecCluster) -> Iterator[Client]:
    with Client(pair, set_as_default=False) as client:
        yield client


def come_to(cluster: SpecCluster, count: int) -> None:
    """Scale, and wait until that is so."""
    cluster.scale(count)
    wait_until(lambda: is_settled(cluster, count), 60)


def is_settled(cluster: SpecCluster, count: int) -> bool:
    states = [worker.status for worker in cluster.workers.values()]
    return (
        len(cluster.scheduler_info["workers"]) == count
        and states == [Status.running] * count
    )


def names(cluster: SpecCluster) -> set[object]:
    return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}


def add(x: int, y: int = 1) -> int:
    return x + y


# -- how it shows itself ---------------------------------------------------------------


def test_the_repr_names_the_address(pair: SpecCluster) -> None:
    assert pair.scheduler_address in repr(pair)


def test_the_repr_names_cluster_and_number_of_workers(pair: SpecCluster) -> None:
    assert "shared" in repr(pair)
    assert "2" in repr(pair).partition(pair.scheduler_address)[2]


def test_html_is_given_and_takes_a_status(pair: SpecCluster) -> None:
    assert "shared" in pair._repr_html_()
    assert "so it is" in pair._repr_html_(cluster_status="so it is")


def test_a_widget_or_text_is_displayed(
    pair: SpecCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    pair._ipython_display_()
    assert capsys.readouterr().out


def test_the_address_has_a_protocol(pair: SpecCluster) -> None:
    protocol, _, place = pair.scheduler_address.partition("://")
    assert protocol in ("inproc", "tls")
    assert place


def test_the_dashboard_has_a_link(pair: SpecCluster) -> None:
    assert pair.dashboard_link.startswith("http://")
    assert pair.dashboard_link.endswith("/status")


def test_the_name_is_the_one_given(pair: SpecCluster) -> None:
    assert pair.name == "shared"


def test_scaling_is_offered(pair: SpecCluster) -> None:
    assert pair._supports_scaling
    assert "Workers: 2" in pair._scaling_status()


# -- what it knows ---------------------------------------------------------------------


def test_it_is_running(pair: SpecCluster) -> None:
    assert pair.status is Status.running
    assert not pair.asynchronous


def test_workers_and_their_plan_have_the_same_names(pair: SpecCluster) -> None:
    assert set(pair.workers) == set(pair.worker_spec) == names(pair)


def test_plan_requested_and_observed_agree(pair: SpecCluster) -> None:
    assert pair.plan == pair.requested == pair.observed


def test_the_scheduler_tells_threads_and_memory(pair: SpecCluster) -> None:
    workers = pair.scheduler_info["workers"].values()
    assert [worker["nthreads"] for worker in workers] == [1, 1]
    assert all(worker["memory_limit"] > 0 for worker in workers)


def test_its_loop_runs_elsewhere_and_runs_what_is_given(pair: SpecCluster) -> None:
    async def on_the_loop() -> bool:
        return asyncio.get_running_loop() is pair.loop.asyncio_loop

    assert pair.sync(on_the_loop)


def test_it_equals_itself_and_can_be_kept_in_a_set(pair: SpecCluster) -> None:
    same = pair
    assert pair == same
    assert len({pair, same}) == 1


def test_waiting_for_workers_that_are_there_returns(pair: SpecCluster) -> None:
    pair.wait_for_workers(WORKERS)


def test_waiting_for_no_workers_is_refused(pair: SpecCluster) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        pair.wait_for_workers(0)


def test_waiting_for_too_many_workers_times_out(pair: SpecCluster) -> None:
    with pytest.raises(TimeoutError):
        pair.wait_for_workers(9, timeout=0.2)


def test_logs_are_told_of_all(pair: SpecCluster) -> None:
    assert {"Cluster", "Scheduler"} < pair.get_logs().keys()
    assert len(pair.get_logs()) == 2 + WORKERS


def test_logs_can_be_chosen(pair: SpecCluster) -> None:
    assert set(pair.get_logs(workers=False)) == {"Cluster", "Scheduler"}
    only = pair.get_logs(cluster=False, scheduler=False)
    assert set(only) == set(pair.scheduler_info["workers"])


# -- its clients -----------------------------------------------------------------------


def test_a_client_computes(client: Client) -> None:
    assert client.submit(add, 1).result(timeout=60) == 2


def test_a_client_maps_over_all_workers(client: Client) -> None:
    futures = client.map(add, range(20))
    assert sum(client.gather(futures)) == 210
    assert len(client.nthreads()) == WORKERS


def test_a_client_knows_its_cluster(pair: SpecCluster, client: Client) -> None:
    assert client.cluster is pair
    assert client.loop is pair.loop
    assert client.dashboard_link == pair.dashboard_link


def test_two_clients_share_it(pair: SpecCluster, client: Client) -> None:
    with Client(pair, set_as_default=False) as other:
        assert other.submit(add, 2).result(timeout=60) == 3
    assert client.submit(add, 3).result(timeout=60) == 4


def test_a_client_that_closes_leaves_it_up(pair: SpecCluster) -> None:
    Client(pair, set_as_default=False).close()
    assert pair.status is Status.running


def test_get_client_gives_the_same_client_again(pair: SpecCluster) -> None:
    with pair.get_client() as first:
        assert pair.get_client() is first
        assert first.submit(add, 1).result(timeout=60) == 2


def test_dask_computes_on_the_default_client(pair: SpecCluster) -> None:
    import dask

    with Client(pair):
        assert dask.delayed(add)(1, 2).compute() == 3


def test_a_client_runs_on_the_scheduler_and_on_each_worker(client: Client) -> None:
    assert client.run_on_scheduler(add, 1) == 2
    assert list(client.run(add, 1).values()) == [2] * WORKERS


def test_a_client_by_address_reaches_the_same(pair: SpecCluster) -> None:
    with Client(pair.scheduler_address, set_as_default=False) as client:
        assert len(client.scheduler_info()["workers"]) == WORKERS


def test_an_error_of_a_task_is_raised_where_it_is_asked_for(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        client.submit(lambda: 1 // 0).result(timeout=60)


def test_a_task_can_have_a_client_of_its_own(client: Client) -> None:
    def nested() -> int:
        from distributed import worker_client

        with worker_client() as own:
            result: int = own.submit(add, 5).result(timeout=60)
            return result

    assert client.submit(nested).result(timeout=60) == 6


def test_data_survive_that_their_worker_is_scaled_away(
    pair: SpecCluster, client: Client
) -> None:
    futures = client.map(add, range(8))
    client.gather(futures)
    come_to(pair, 1)
    assert client.gather(futures) == list(range(1, 9))


# -- its size --------------------------------------------------------------------------


def test_scaling_to_what_there_is_changes_nothing(pair: SpecCluster) -> None:
    before = dict(pair.workers)
    pair.scale(WORKERS)
    wait_until(lambda: is_settled(pair, WORKERS))
    assert pair.workers == before


def test_scaling_up_adds_and_down_takes_workers(pair: SpecCluster) -> None:
    before = names(pair)
    come_to(pair, 3)
    assert before < names(pair)
    come_to(pair, 1)
    assert len(pair.workers) == len(pair.worker_spec) == 1


def test_scaling_to_nothing_and_back(pair: SpecCluster) -> None:
    come_to(pair, 0)
    assert pair.workers == {}
    come_to(pair, 1)


def test_scaling_by_cores(pair: SpecCluster) -> None:
    pair.scale(cores=1)
    wait_until(lambda: is_settled(pair, 1), 60)


def test_scaling_by_memory(pair: SpecCluster) -> None:
    each = max(w["memory_limit"] for w in pair.scheduler_info["workers"].values())
    pair.scale(memory=each)
    wait_until(lambda: is_settled(pair, 1), 60)


def test_the_larger_of_two_sizes_counts(pair: SpecCluster) -> None:
    pair.scale(1, cores=2)
    wait_until(lambda: is_settled(pair, 2), 60)


def test_a_new_worker_gets_a_name_that_is_free(pair: SpecCluster) -> None:
    (name,) = pair.new_worker_spec()
    assert name not in pair.worker_spec


def test_a_worker_is_taken_by_its_name(pair: SpecCluster) -> None:
    chosen = min(pair.workers)
    pair.sync(pair.scale_down, [chosen])
    wait_until(lambda: is_settled(pair, 1))
    assert chosen not in pair.workers


def test_scaling_twice_in_a_row_comes_to_the_last(pair: SpecCluster) -> None:
    pair.scale(3)
    pair.scale(1)
    wait_until(lambda: is_settled(pair, 1), 60)


def test_adapting_follows_the_work(pair: SpecCluster, client: Client) -> None:
    come_to(pair, 0)
    pair.adapt(minimum=0, maximum=1, interval="20ms", wait_count=2)
    future = client.submit(add, 1)
    assert future.result(timeout=60) == 2
    del future
    wait_until(lambda: len(pair.workers) == 0, 60)


def test_adapting_keeps_a_minimum(pair: SpecCluster) -> None:
    come_to(pair, 0)
    pair.adapt(minimum=1, maximum=2, interval="20ms")
    wait_until(lambda: is_settled(pair, 1), 60)


def test_adapting_by_cores(pair: SpecCluster) -> None:
    come_to(pair, 0)
    adaptive = pair.adapt(minimum_cores=1, maximum_cores=2, interval="20ms")
    assert (adaptive.minimum, adaptive.maximum) == (1, 2)
    wait_until(lambda: is_settled(pair, 1), 60)


def test_adapting_by_memory(pair: SpecCluster) -> None:
    each = max(w["memory_limit"] for w in pair.scheduler_info["workers"].values())
    adaptive = pair.adapt(minimum_memory=each, maximum_memory=2 * each, interval="1s")
    assert (adaptive.minimum, adaptive.maximum) == (1, 2)


def test_adapting_again_replaces_what_was(pair: SpecCluster) -> None:
    first = pair.adapt(minimum=2, maximum=2, interval="1s")
    second = pair.adapt(minimum=2, maximum=3, interval="1s")
    assert first.periodic_callback is None
    assert pair._adaptive is second
    assert "Adaptive" in pair._scaling_status()


def test_adapting_takes_a_class_of_the_users(pair: SpecCluster) -> None:
    class Own(AdaptiveClass):
        """Says how many, whatever the work."""

        async def target(self) -> int:
            return 1

    assert issubclass(Own, Adaptive)
    pair.adapt(Own, minimum=0, maximum=2, interval="20ms", wait_count=1)
    wait_until(lambda: is_settled(pair, 1), 60)


def test_a_restart_keeps_the_workers(make: Make) -> None:
    # Threads are not started again by Dask; processes are.
    option = {"processes": True} if make is local else {}
    with make(1, **option) as cluster, Client(cluster, set_as_default=False) as client:
        before = client.run(os.getpid)
        client.restart(timeout=60)
        wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1, 60)
        assert set(client.run(os.getpid).values()).isdisjoint(before.values())


def test_a_killed_worker_comes_back(make: Make) -> None:
    option = {"processes": True} if make is local else {}
    with make(1, **option) as cluster, Client(cluster, set_as_default=False) as client:
        (before,) = client.run(os.getpid).values()
        os.kill(before, signal.SIGKILL)
        after = client.submit(os.getpid, pure=False).result(timeout=60)
        assert after != before
        assert len(cluster.workers) == 1


# -- its life --------------------------------------------------------------------------


def test_it_closes_once_and_again(make: Make) -> None:
    cluster = make(0)
    cluster.close()
    cluster.close()
    assert cluster.status is Status.closed


def test_with_gives_the_cluster_and_closes_it(make: Make) -> None:
    with make(0) as cluster:
        assert cluster.status is Status.running
    assert cluster.status is Status.closed


def test_an_error_inside_with_is_passed_on_and_closes_it(make: Make) -> None:
    cluster = make(0)
    with pytest.raises(KeyError), cluster:
        raise KeyError("its own")
    assert cluster.status is Status.closed


def test_no_client_is_had_of_a_closed_cluster(make: Make) -> None:
    cluster = make(0)
    cluster.close()
    with pytest.raises(RuntimeError, match="closed"):
        Client(cluster)


def test_a_client_learns_that_the_cluster_has_closed(make: Make) -> None:
    with make(0) as cluster:
        client = Client(cluster, set_as_default=False)
    wait_until(lambda: client.status in ("closed", "closing", "connecting"))
    client.close()


def test_two_at_once_are_two(make: Make) -> None:
    with make(0) as first, make(0) as second:
        assert first.name != second.name
        assert first != second
        assert first.scheduler_address != second.scheduler_address


def test_a_closed_cluster_shows_itself_still(make: Make) -> None:
    cluster = make(0)
    cluster.close()
    assert repr(cluster)
    assert cluster._repr_html_()


async def test_it_is_awaited(make: Make) -> None:
    cluster = await make(0, asynchronous=True)
    assert cluster.asynchronous
    assert cluster.status is Status.running
    assert await cluster is cluster
    await cluster.close()
    assert cluster.status is Status.closed


async def test_async_with_starts_and_closes_it(make: Make) -> None:
    async with make(1, asynchronous=True) as cluster:
        assert len(cluster.workers) == 1
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            assert await client.submit(add, 1) == 2
    assert cluster.status is Status.closed


async def test_an_error_inside_async_with_closes_it(make: Make) -> None:
    cluster = make(0, asynchronous=True)
    with pytest.raises(KeyError):
        async with cluster:
            raise KeyError("its own")
    assert cluster.status is Status.closed


async def test_with_without_async_is_refused_in_a_loop(make: Make) -> None:
    cluster = make(0, asynchronous=True)
    with pytest.raises(TypeError, match="async with"):
        cluster.__enter__()
    await cluster.close()


async def test_scaling_in_a_loop_can_be_awaited(make: Make) -> None:
    async with make(0, asynchronous=True) as cluster:
        await cluster.scale(1)
        await until(lambda: is_settled(cluster, 1), 60)


def test_a_worker_that_cannot_start_is_an_error_and_nothing_is_left(
    make: Make,
) -> None:
    broken = {"preload": ["no_such_module_at_all"]}
    option = {"nanny": broken} if make is leased else broken
    with pytest.raises(Exception, match=r"no_such_module_at_all|failed to start"):
        make(1, **option)


# -- its options -----------------------------------------------------------------------


def test_a_port_of_the_scheduler_is_taken(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with make(0, scheduler_port=port, host="127.0.0.1") as cluster:
        assert cluster.scheduler_address.endswith(f"127.0.0.1:{port}")


def test_no_dashboard_has_no_link(make: Make) -> None:
    with make(0, dashboard_address=None) as cluster:
        is_ours = make is leased
        assert not (is_ours and cluster.dashboard_link)


def test_handlers_can_be_blocked(make: Make) -> None:
    with (
        make(0, blocked_handlers=["identity"]) as cluster,
        pytest.raises((ValueError, TypeError, AttributeError, OSError)),
    ):
        cluster.wait_for_workers(1, timeout=1)


def test_further_arguments_reach_the_scheduler(make: Make) -> None:
    with make(0, scheduler_kwargs={"idle_timeout": "1234s"}) as cluster:
        assert cluster.scheduler.idle_timeout == 1234


def test_logs_are_silenced_while_it_is_up(make: Make) -> None:
    logger = logging.getLogger("distributed")
    handler = logging.StreamHandler()  # a library that sets up logging removes others
    logger.addHandler(handler)
    try:
        with make(0, silence_logs=logging.CRITICAL):
            assert handler.level == logging.CRITICAL
        assert handler.level == logging.NOTSET
    finally:
        logger.removeHandler(handler)


def test_a_loop_of_the_users_is_used(make: Make, pair: SpecCluster) -> None:
    with make(0, loop=pair.loop) as cluster:
        assert cluster.loop is pair.loop
    assert pair.status is Status.running


def test_whether_it_ends_with_python_is_kept(make: Make) -> None:
    with contextlib.closing(make(0)) as cluster:
        assert cluster.shutdown_on_close


def test_the_interval_of_its_exchange_is_taken(make: Make) -> None:
    with make(0, scheduler_sync_interval="200 ms") as cluster:
        assert cluster._sync_interval == 0.2


def test_certificates_are_made_and_used_by_its_clients(make: Make) -> None:
    option = {"security": True, "protocol": "tls"}
    with make(0, **option) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with Client(cluster, set_as_default=False) as client:
            assert client.security is cluster.security


def test_certificates_of_the_users_are_used(make: Make) -> None:
    own = Security.temporary()
    with make(0, security=own, protocol="tls") as cluster:
        assert cluster.security is own


# -- where ours says more --------------------------------------------------------------


@pytest.mark.parametrize("count", [-1, 1.5, "two", True])
def test_a_size_that_makes_no_sense_is_refused(cluster: Cluster, count: Any) -> None:
    before = dict(cluster.worker_spec)
    with pytest.raises(InvalidRequest, match=r"^n: expected a whole number from 0 up"):
        cluster.scale(count)
    assert cluster.worker_spec == before


def test_the_problem_of_an_old_order_does_not_outlive_it(cluster: Cluster) -> None:
    cluster.scale(9)
    wait_until(lambda: cluster.problem, 60)
    cluster.adapt(minimum=2, maximum=2, interval="1s").stop()
    assert cluster.problem == ""
    cluster.scale(9)
    wait_until(lambda: cluster.problem, 60)
    cluster.scale(2)
    assert cluster.problem == ""


def test_a_port_that_is_taken_is_named(cpu_host: Path) -> None:
    with leased(0) as cluster:
        port = int(cluster.scheduler_address.rpartition(":")[2])
        with pytest.raises(
            ClusterError, match=r"the scheduler did not start: .*in use"
        ):
            leased(0, scheduler_port=port)
