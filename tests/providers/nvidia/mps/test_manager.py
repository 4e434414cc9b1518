"""One daemon for each GPU: started when a lease needs it, each lease held to its own
size, stopped with the last.
"""

from __future__ import annotations

import os

import pytest

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.mps.limits import SLOTS, multiprocessors_at_most
from jupyter_aistack.providers.nvidia.mps.paths import short
from tests.fakes.mps.host import GPU, H200, Stand
from tests.fakes.threads import NewThreads

pytestmark = pytest.mark.service


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_gets_its_lease_and_no_more(stand: Stand, protocol: int) -> None:
    held = stand.hold(stand.manager(), percent=25, mib=35942, protocol=protocol)
    assert held.protocol == protocol
    seen = stand.view(held)
    assert (seen["mps"], seen["mib"]) == (True, 35942)
    assert seen["multiprocessors"] == multiprocessors_at_most(
        132, 25, protocol=protocol
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_two_leases_share_one_daemon_and_each_has_its_own_limit(
    stand: Stand, protocol: int
) -> None:
    manager = stand.manager()
    half = stand.hold(manager, "l-1", percent=50, mib=70000, protocol=protocol)
    pid = stand.running()
    eighth = stand.hold(manager, "l-2", percent=12, mib=17000, protocol=protocol)
    assert stand.running() == pid
    assert [stand.view(half)["mib"], stand.view(eighth)["mib"]] == [70000, 17000]
    assert [stand.view(half)["multiprocessors"], stand.view(eighth)["multiprocessors"]][
        0
    ] == 66
    assert stand.view(eighth)["multiprocessors"] < 20


def test_a_namespace_holds_a_client_that_drops_its_environment(stand: Stand) -> None:
    held = stand.hold(stand.manager(), percent=25, mib=35942)
    seen = stand.view(
        held,
        CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="100",
        CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="",
    )
    assert (seen["multiprocessors"], seen["mib"]) == (32, 35942)


def test_protocol_2_holds_such_a_client_to_the_largest_lease_of_the_gpu(
    stand: Stand,
) -> None:
    manager = stand.manager()
    small = stand.hold(manager, "l-1", percent=12, mib=17000, protocol=2)
    stand.hold(manager, "l-2", percent=25, mib=35000, protocol=2)
    bare = {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "",
    }
    assert stand.view(small, **bare) == {
        "mps": True,
        "multiprocessors": 34,
        "mib": 35000,
    }
    manager.unprepare("l-2", GPU, 0)
    assert stand.view(small, **bare)["mib"] == 17000


def test_strict_gives_each_lease_a_daemon_with_its_own_limit(stand: Stand) -> None:
    manager = stand.manager(strict=True)
    small = stand.hold(manager, "l-1", percent=12, mib=17000, protocol=2)
    large = stand.hold(manager, "l-2", percent=50, mib=70000, protocol=2)
    assert small.directory != large.directory
    bare = {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "",
    }
    assert [stand.view(small, **bare)["mib"], stand.view(large, **bare)["mib"]] == [
        17000,
        70000,
    ]
    assert manager.clients("l-1", GPU, 0) == frozenset()
    manager.unprepare("l-1", GPU, 0)
    assert not small.directory.joinpath("control").exists()
    assert stand.view(large)["mps"]


def test_a_stray_gets_next_to_nothing(stand: Stand) -> None:
    held = stand.hold(stand.manager())
    stray = stand.view(
        held, CUDA_MPS_PIPE_DIRECTORY=str(held.directory.parent / "default")
    )
    assert stray["mps"] is False  # no socket of its own there
    assert stand.dump()["namespaces"]["default"] == {"pinned": "256M", "percent": 1.0}


def test_asking_again_changes_nothing_and_starts_nothing(stand: Stand) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    asked = (stand.root / short(GPU) / "log" / "control.log").read_text()
    assert stand.hold(manager) == held
    assert (stand.root / short(GPU) / "log" / "control.log").read_text() == asked


def test_the_daemon_ends_with_its_last_lease(stand: Stand) -> None:
    manager = stand.manager()
    stand.hold(manager, "l-1")
    stand.hold(manager, "l-2")
    running = stand.running()
    assert running is not None
    manager.unprepare("l-1", GPU, 0)
    assert running.is_alive
    manager.unprepare("l-2", GPU, 0)
    manager.unprepare("l-2", GPU, 0)
    assert not running.is_alive
    assert stand.running() is None
    assert manager.clients("l-2", GPU, 0) is None


def test_a_daemon_with_clients_outlives_its_leases_until_they_have_gone(
    stand: Stand,
) -> None:
    manager = stand.manager()
    stand.hold(manager)
    running = stand.running()
    assert running is not None
    stand.tell(clients=[[os.getpid(), "default"]])
    manager.unprepare("l-1", GPU, 0)
    manager.check()
    assert running.is_alive
    stand.tell(clients=[])
    manager.check()
    assert not running.is_alive


def test_a_namespace_outlives_its_lease_until_its_clients_have_gone(
    stand: Stand,
) -> None:
    manager = stand.manager()
    ended, _ = stand.hold(manager, "l-1", mib=30000), stand.hold(manager, "l-2")
    stand.tell(clients=[[os.getpid(), ended.directory.name]])
    manager.unprepare("l-1", GPU, 0)
    manager.check()
    assert stand.view(ended)["mib"] == 30000  # and not the whole GPU
    stand.tell(clients=[])
    manager.check()
    assert ended.directory.name not in stand.dump()["namespaces"]


def test_two_servers_of_one_user_share_a_daemon_and_the_last_to_leave_ends_it(
    stand: Stand,
) -> None:
    first, second = stand.manager(), stand.manager()
    stand.hold(first, "l-1")
    running = stand.running()
    stand.hold(second, "l-2")
    assert stand.running() == running
    assert running is not None
    first.unprepare("l-1", GPU, 0)
    first.check()
    assert running.is_alive
    first.unprepare("l-2", GPU, 0)  # whoever hears first of a lease's end undoes it
    assert not running.is_alive


def test_each_gpu_has_its_own_daemon(stand: Stand) -> None:
    stand.tell(gpus={GPU: H200, "GPU-1": H200})
    manager = stand.manager()
    stand.hold(manager, "l-1")
    stand.hold(manager, "l-2", gpu="GPU-1", index=1)
    entry, other = stand.running(), stand.running("GPU-1")
    assert entry is not None
    assert other is not None
    assert entry.pid != other.pid
    servers = {*stand.servers()}
    assert len(servers) == 2
    assert manager.own_pids() == {entry.pid, other.pid, *servers}
    assert stand.dump("GPU-1")["name"] == "g1"
    manager.unprepare("l-1", GPU, 0)
    assert (entry.is_alive, other.is_alive) == (False, True)


@pytest.mark.parametrize("protocol", [2, 3])
def test_clients_are_told_and_ended_through_the_server(
    stand: Stand, protocol: int
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, protocol=protocol)
    stand.hold(manager, "l-2", protocol=protocol)
    stand.tell(clients=[[os.getpid(), held.directory.name], [os.getppid(), "l0"]])
    everybody = {os.getpid(), os.getppid()}
    assert manager.clients("l-1", GPU, 0) == (
        {os.getpid()} if protocol == 3 else everybody
    )
    manager.terminate("l-1", GPU, 0, os.getpid())
    assert stand.dump()["terminated"] == [os.getpid()]
    with pytest.raises(ProviderError, match="held by no MPS server"):
        manager.terminate("l-9", GPU, 0, os.getpid())
    stand.tell(clients=[])


def test_the_watch_is_a_thread_of_its_own_and_ends_when_told(stand: Stand) -> None:
    started = NewThreads()
    manager = stand.manager(interval=0.01)
    stand.hold(manager)
    (thread,) = started.named("aistack-mps")
    manager.close()
    assert not thread.is_alive()
    assert stand.running() is not None  # the lease is still held
    manager.unprepare("l-1", GPU, 0)


# -- where it lives, and what it knows -------------------------------------------------


def test_there_are_as_many_slots_as_the_driver_has(stand: Stand) -> None:
    assert SLOTS == 48
    manager = stand.manager()
    stand.hold(manager, "l-1", slots=1)
    with pytest.raises(ProviderError, match="has 1 clients, and takes no more"):
        stand.hold(manager, "l-2", slots=1)
    assert stand.hold(manager, "l-1", slots=1)
