"""What goes wrong with MPS, each on purpose: nobody stops, no lease gets more than its
own, and one sentence says what happened and when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from jupyter_aistack.core.model.device import Fault
from jupyter_aistack.exceptions import PrepareFailed, ProviderError
from jupyter_aistack.providers.nvidia.mps.manager import RETRY_SECONDS
from jupyter_aistack.providers.nvidia.mps.paths import DaemonPaths, short
from jupyter_aistack.providers.nvidia.mps.protocol2 import Protocol2
from tests.fakes.mps.host import GPU, H200, Stand
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.service


@pytest.fixture
def client() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a kernel on the GPU."""
    with subprocess.Popen(["sleep", "120"]) as process:
        yield process
        process.kill()


def kill_daemon(stand: Stand) -> None:
    running = stand.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    while running.is_alive:
        pass


# -- a daemon that does not come up ----------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_server_that_ends_as_it_starts_is_told_of_and_leaves_nothing(
    stand: Stand, protocol: int
) -> None:
    stand.tell(gpus={"GPU-9": H200})
    manager = stand.manager()
    with pytest.raises(
        ProviderError,
        match=r"GPU 0 \(GPU-0\) ended as soon as it started \(no CUDA-capable device",
    ) as caught:
        stand.hold(manager, protocol=protocol)
    assert not isinstance(caught.value, PrepareFailed)
    assert "no CUDA-capable device" in manager.failure(GPU)
    assert (stand.running(), stand.servers()) == (None, [])
    assert manager.clients("l-1", GPU, 0) is None


def test_of_many_leases_the_first_alone_waits_for_a_server_that_fails(
    stand: Stand,
) -> None:
    stand.tell(server_fails=[])
    manager = stand.manager()
    for lease in ("l-1", "l-2", "l-3"):
        with pytest.raises(ProviderError, match=r"\(Server \d+ exited with status 1\)"):
            stand.hold(manager, lease, protocol=2)
    log = (stand.root / short(GPU) / "log" / "control.old").read_text()
    assert log.count("Starting new server") == 1
    stand.clock.advance(RETRY_SECONDS)
    stand.tell(server_fails=None)
    assert stand.hold(manager, protocol=2).protocol == 2
    assert manager.failure(GPU) == ""


def test_a_server_that_failed_since_is_started_before_the_next_lease(
    stand: Stand,
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, "l-1", protocol=2)
    (server,) = stand.servers()
    os.kill(server, signal.SIGKILL)
    stand.tell(server_fails=["Server encountered a fatal exception. Shutting down"])
    with pytest.raises(ProviderError, match=r"\(Server encountered a fatal exception"):
        stand.hold(manager, "l-2", protocol=2)
    stand.clock.advance(RETRY_SECONDS)
    stand.tell(server_fails=None)
    assert stand.hold(manager, "l-2", protocol=2).directory == held.directory
    assert len(stand.servers()) == 1


def test_where_no_daemon_with_namespaces_comes_up_an_older_one_holds_the_lease(
    stand: Stand,
) -> None:
    stand.tell(server_fails_in=3)
    manager = stand.manager()
    held = stand.hold(manager, percent=25, mib=30000, protocol=3)
    assert (held.protocol, stand.view(held)["mib"]) == (2, 30000)
    assert "ended as soon as it started" in held.reason
    assert held.reason == manager.failure(GPU, 3)
    assert manager.failure(GPU) == ""


# -- what the control program refuses in silence ----------------------------------------


def test_a_server_that_has_gone_is_no_client_of_its_own(stand: Stand) -> None:
    manager = stand.manager()
    stand.hold(manager, protocol=2)
    (server,) = stand.servers()
    control = Protocol2(DaemonPaths(stand.root / short(GPU)), GPU, 0)
    listed = control.servers()
    os.kill(server, signal.SIGKILL)
    assert control.clients(servers=listed) == frozenset()
    assert (control.servers(), control.clients()) == ((), frozenset())
    with pytest.raises(ProviderError, match="is no client"):
        control.terminate(server)


def test_a_server_that_ends_between_two_questions_is_none(stand: Stand) -> None:
    stand.hold(stand.manager(), protocol=2)
    (server,) = stand.servers()
    control = Protocol2(DaemonPaths(stand.root / short(GPU)), GPU, 0)
    stand.tell(lists_gone=1234)
    assert [each.pid for each in control.servers()] == [server]
    assert control.clients() == frozenset()


def test_a_limit_of_memory_that_is_not_kept_is_noticed(stand: Stand) -> None:
    stand.tell(ignore_limits="memory")
    words = "MPS does not keep the limit of 30000 MiB of memory"
    with pytest.raises(ProviderError, match=words):
        stand.hold(stand.manager(), mib=30000, protocol=2)
    assert stand.running() is None


# -- what a daemon leaves behind ---------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_server_of_a_killed_daemon_ends_with_the_last_lease(
    stand: Stand, protocol: int
) -> None:
    manager = stand.manager()
    stand.hold(manager, protocol=protocol)
    (left,) = stand.servers()
    kill_daemon(stand)
    assert stand.servers() == [left]
    manager.check()
    assert left in stand.servers(), "somebody may work on it"
    assert left in manager.own_pids()
    manager.unprepare("l-1", GPU, 0)
    assert stand.servers() == []


def test_the_server_of_a_killed_daemon_ends_with_its_clients(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    (left,) = stand.servers()
    kill_daemon(stand)
    stand.tell(clients=[])
    manager.check()
    assert left in stand.servers()
    client.kill()
    client.wait()
    manager.check()
    assert left not in stand.servers()
    assert len(stand.servers()) == 1


def test_a_server_that_outlives_a_daemon_that_quit_is_ended(stand: Stand) -> None:
    manager = stand.manager()
    stand.hold(manager)
    stand.tell(server_outlives=True)
    manager.unprepare("l-1", GPU, 0)
    assert (stand.running(), stand.servers()) == (None, [])


def test_a_daemon_does_not_wait_for_clients_that_came_as_it_was_ended(
    stand: Stand,
) -> None:
    stand.hold(stand.manager(), protocol=2)
    stand.tell(clients=[[os.getpid(), "default"]])
    control = Protocol2(DaemonPaths(stand.root / short(GPU)), GPU, 0, seconds=5.0)
    control.quit()
    running = stand.running()
    assert running is not None
    wait_until(lambda: not running.is_alive)


def test_a_daemon_that_refuses_to_start_is_tried_again_after_a_while(
    stand: Stand,
) -> None:
    stand.tell(refuse_start="no compatible devices")
    manager = stand.manager()
    with pytest.raises(
        ProviderError, match="ended with status 1: no compatible devices"
    ) as caught:
        stand.hold(manager)
    assert not isinstance(caught.value, PrepareFailed)
    assert "no compatible devices" in manager.failure(GPU)
    stand.clock.advance(RETRY_SECONDS)
    assert manager.failure(GPU) == ""
    stand.tell(refuse_start="")
    assert stand.hold(manager).protocol == 3


@pytest.mark.parametrize("polite", [False, True])
def test_a_daemon_that_speaks_another_protocol_is_taken_as_it_is(
    stand: Stand, polite: bool
) -> None:
    stand.tell(speaks=2, polite=polite)
    manager = stand.manager()
    held = stand.hold(manager, percent=25, mib=30000, protocol=3)
    assert held.protocol == 2
    assert stand.view(held)["mib"] == 30000


@pytest.mark.parametrize("protocol", [2, 3])
def test_limits_that_are_taken_and_not_kept_are_noticed(
    stand: Stand, protocol: int
) -> None:
    stand.tell(ignore_limits=True)
    with pytest.raises(ProviderError, match=r"MPS does not keep the limits? "):
        stand.hold(stand.manager(), protocol=protocol)
    assert stand.running() is None


def test_without_the_control_program_there_is_no_mps(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ProviderError, match="nvidia-cuda-mps-control is not on the server's PATH"
    ):
        stand.hold(stand.manager())


# -- traps of the environment ----------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_one_bad_entry_lifts_every_memory_limit_and_we_name_the_visible_device_alone(
    stand: Stand, protocol: int
) -> None:
    held = stand.hold(stand.manager(), mib=30000, protocol=protocol)
    assert stand.view(held)["mib"] == 30000
    assert (
        stand.view(held, CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=30000M,1=4G")["mib"]
        == H200["mib"]
    )


def test_a_wrong_directory_is_the_whole_gpu(stand: Stand) -> None:
    held = stand.hold(stand.manager(), percent=25)
    seen = stand.view(held, CUDA_MPS_PIPE_DIRECTORY=str(held.directory) + "x")
    assert seen == {"mps": False, **H200}


# -- a fault of a client ---------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_fault_closes_the_gpu_names_the_client_and_ends_with_those_it_broke(
    stand: Stand, client: subprocess.Popen[bytes], protocol: int
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, percent=25, mib=30000, protocol=protocol)
    before = stand.running()
    stand.tell(fault=True, clients=[[client.pid, held.directory.name]])
    stand.log(
        f"Client {{PID: {client.pid}, Context ID: 0}} encountered a fatal GPU error"
    )
    manager.check()
    words = f"was closed: process {client.pid} caused a fault that broke the work of all who share it"
    assert words in manager.problem(GPU, 0)
    assert f"it opens when process {client.pid} has ended" in manager.problem(GPU, 0)
    assert manager.faults() == (
        Fault(
            device_id=GPU, pid=client.pid, message=f"GPU 0 {manager.problem(GPU, 0)}"
        ),
    )
    with pytest.raises(PrepareFailed, match="GPU 0 was closed"):
        stand.hold(manager, "l-2", protocol=protocol)
    manager.check()
    assert (
        stand.running() == before
    )  # its clients have not gone: nothing is ended under them
    client.kill()
    client.wait()
    stand.tell(clients=[], fault=False)
    manager.check()
    assert (manager.problem(GPU, 0), manager.faults()) == ("", ())
    after = stand.running()
    assert after is not None
    assert before is not None
    assert after.pid != before.pid
    assert (
        stand.view(held)["mib"] == 30000
    )  # the lease is held by the fresh server as it was


def test_a_fault_that_the_log_alone_tells_of_counts(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(clients=[[client.pid, held.directory.name]])
    stand.log(f"fatal exception of client {client.pid}")
    manager.check()
    assert manager.faults()[0].pid == client.pid
    stand.tell(clients=[])


def test_a_fault_of_nobody_in_particular_is_told_without_a_name(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(fault=True, clients=[[client.pid, held.directory.name]])
    manager.check()
    assert manager.faults()[0].pid is None
    assert "a process that MPS does not name" in manager.problem(GPU, 0)
    stand.tell(clients=[], fault=False)


def test_a_kernel_that_starts_again_after_its_own_fault_opens_the_gpu(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(fault=True, clients=[[client.pid, held.directory.name]])
    manager.check()
    client.kill()
    client.wait()
    stand.tell(clients=[], fault=False)
    assert stand.hold(manager) == held
    assert manager.problem(GPU, 0) == ""


def test_another_broker_of_the_user_sees_the_closed_gpu_and_opens_it(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager, other = stand.manager(), stand.manager()
    held = stand.hold(manager)
    stand.tell(fault=True, clients=[[client.pid, held.directory.name]])
    manager.check()
    assert other.problem(GPU, 0) == manager.problem(GPU, 0)
    client.kill()
    client.wait()
    stand.tell(clients=[], fault=False)
    other.check()
    assert manager.problem(GPU, 0) == ""


# -- a daemon that is lost -------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_killed_daemon_comes_back_with_its_leases(
    stand: Stand, protocol: int
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, percent=25, mib=30000, protocol=protocol)
    kill_daemon(stand)
    manager.check()
    assert stand.view(held)["mib"] == 30000
    assert (manager.problem(GPU, 0), manager.faults()) == ("", ())


@pytest.mark.parametrize("protocol", [2, 3])
def test_who_starts_before_anybody_has_noticed_finds_a_daemon_again(
    stand: Stand, protocol: int
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, protocol=protocol)
    kill_daemon(stand)
    assert (held.directory / "control").exists(), (
        "what a killed daemon leaves looks as it did"
    )
    again = stand.hold(manager, protocol=protocol)
    running = stand.running()
    assert running is not None
    assert running.is_alive
    assert stand.view(again)["mib"] == held.limit.mib


def test_that_tells_those_who_were_connected(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    kill_daemon(stand)
    stand.hold(manager, "l-2")
    assert [
        f"process {client.pid} must be started again" in fault.message
        for fault in manager.faults()
    ] == [True]


def test_the_clients_of_a_killed_daemon_are_told_until_they_have_gone(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    stand.tell(clients=[])
    kill_daemon(stand)
    manager.check()
    assert f"process {client.pid} must be started again" in manager.faults()[0].message
    assert manager.problem(GPU, 0) == ""  # others may use it
    client.kill()
    client.wait()
    manager.check()
    assert manager.faults() == ()


def test_a_server_that_died_under_its_daemon_comes_back_with_its_leases(
    stand: Stand,
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, mib=30000)
    running = stand.running()
    assert running is not None
    stand.tell(kill_server=running.pid)
    manager.check()
    assert stand.view(held)["mib"] == 30000
    assert not running.is_alive


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_clients_of_a_server_that_died_under_its_daemon_are_told(
    stand: Stand, client: subprocess.Popen[bytes], protocol: int
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, protocol=protocol)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    running = stand.running()
    assert running is not None
    stand.tell(kill_server=running.pid)
    manager.check()
    assert [
        f"process {client.pid} must be started again" in fault.message
        for fault in manager.faults()
    ] == [True]
    assert (manager.problem(GPU, 0), stand.view(held)["mib"]) == ("", held.limit.mib)


def test_a_daemon_that_does_not_come_back_closes_the_gpu_until_it_does(
    stand: Stand,
) -> None:
    manager = stand.manager()
    held = stand.hold(manager)
    stand.tell(refuse_start="the device is lost")
    kill_daemon(stand)
    manager.check()
    assert "does not start again" in manager.problem(GPU, 0)
    assert "the device is lost" in manager.problem(GPU, 0)
    manager.check()
    assert "cannot be opened again" in manager.problem(GPU, 0)
    stand.tell(refuse_start="")
    manager.check()
    assert manager.problem(GPU, 0) == ""
    assert stand.view(held)["mps"]
    assert stand.running().protocol == 3  # type: ignore[union-attr]


def test_a_daemon_that_hangs_closes_the_gpu_until_it_answers(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager(answer_seconds=1.0)
    held = stand.hold(manager)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    stand.tell(hang=True)
    manager.check()
    assert manager.problem(GPU, 0) == ""  # once may be a busy host
    manager.check()
    assert "does not answer" in manager.problem(GPU, 0)
    before = stand.running()
    manager.check()
    assert stand.running() == before
    stand.tell(hang=False)
    manager.check()
    assert (manager.problem(GPU, 0), stand.running()) == ("", before)
    stand.tell(clients=[])


def test_pipes_that_somebody_removed_close_the_gpu_and_come_back(
    stand: Stand, client: subprocess.Popen[bytes]
) -> None:
    manager = stand.manager()
    held = stand.hold(manager, mib=30000)
    stand.tell(clients=[[client.pid, held.directory.name]])
    manager.check()
    shutil.rmtree(stand.root / short(GPU) / "p")
    manager.check()
    assert "lost the directory of its MPS daemon" in manager.problem(GPU, 0)
    with pytest.raises(PrepareFailed, match="lost the directory"):
        stand.hold(manager)
    stand.tell(clients=[])
    client.kill()
    client.wait()
    manager.check()
    assert manager.problem(GPU, 0) == ""
    assert stand.view(held)["mib"] == 30000


def test_a_folder_that_somebody_removed_whole_is_written_anew(stand: Stand) -> None:
    manager = stand.manager()
    held = stand.hold(manager, mib=30000)
    before = stand.running()
    shutil.rmtree(stand.root)
    manager.check()
    manager.check()
    after = stand.running()
    assert before is not None
    assert not before.is_alive
    assert after is not None
    assert stand.view(held)["mib"] == 30000


def test_a_runtime_folder_that_went_with_its_session_closes_the_gpu_until_its_leases_end(
    stand: Stand,
) -> None:
    manager = stand.manager()
    stand.hold(manager)
    running = stand.running()
    assert running is not None
    (server,) = stand.servers()
    shutil.rmtree(stand.root.parent)
    manager.check()
    assert "lost the folder of its MPS daemon for good" in manager.problem(GPU, 0)
    assert len(manager.faults()) == 1
    stand.root.parent.mkdir()
    manager.unprepare("l-1", GPU, 0)
    wait_until(lambda: not running.is_alive)
    wait_until(lambda: server not in stand.servers())
    assert (manager.problem(GPU, 0), manager.faults()) == ("", ())
    assert stand.hold(manager, "l-2").protocol == 3


def test_leases_of_a_server_that_crashed_do_not_keep_a_daemon_for_ever(
    stand: Stand,
) -> None:
    manager = stand.manager()
    stand.hold(manager)
    entry = stand.root / short(GPU) / "leases" / f"l{short('l-1')}.json"
    gone = subprocess.Popen(["true"])
    gone.wait()
    entry.write_text(
        entry.read_text().replace(f'"owner": {os.getpid()}', f'"owner": {gone.pid}')
    )
    successor = stand.manager()
    stand.hold(successor, "l-2")
    successor.check()
    assert not entry.exists()
    successor.unprepare("l-2", GPU, 0)
    assert stand.running() is None
