"""Shares of a GPU through a real broker: the level the host reaches, what the process
is given, and every way down.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.exceptions import PrepareFailed, ProviderError, Unsatisfiable
from jupyter_aistack.system.processes import is_alive
from tests.fakes.mps.host import H200, Stand
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.service

REDUCED = ConditionKind.ENFORCEMENT_REDUCED.label
GPU = f"gpu uuid=GPU-0 name=NVIDIA_H200 memory={80 * GIB} cores=16896\n"
TWO = GPU + GPU.replace("GPU-0", "GPU-1")
OLD, NEW = "driver 580.65.06\n", "driver 615.71.09\n"
SETUP = """
import os, shutil, threading
from dataclasses import replace
from pathlib import Path
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.dmem.client import DmemClient
from jupyter_aistack.providers.nvidia.dmem.groups import Groups
from jupyter_aistack.providers.nvidia.dmem.helper import Helper
from jupyter_aistack.providers.nvidia.dmem.listener import Listener
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.providers.nvidia.mps import MPSManager
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.providers.nvidia.capability_probe import CapabilityProbe
from jupyter_aistack.providers.nvidia.enforcement import ShareEnforcer
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.measuring import usage, works
clock, nvml = ManualClock(), NVML()
groups = Path(os.environ["FAKE_CGROUP"])
dmem = DmemClient(groups / "dmem.sock", trusted={os.getuid()})
mps = MPSManager(root=lambda: Path(os.environ["MPS_ROOT"]), interval=None, clock=clock, pause=lambda _: None)
prober = CapabilityProbe(nvml, mps, dmem, cgroups=groups, clock=clock)
sharing = ShareEnforcer(nvml, mps=mps, dmem=dmem, prober=prober, clock=clock)
gpus = GPUProvider(nvml, clock=clock, sharing=sharing)
broker = Broker(MemoryLedger(), [gpus], host="testbox", clock=clock, ttl_seconds=3600.0)
def held(spec, name="kernel-1"):
    request = broker.submit(spec, holder(name, pid=os.getppid()))
    return broker.lease(request.lease_id)
def prepared(spec, name="kernel-1"):
    return broker.prepare(held(spec, name))
def device():
    clock.advance(10)
    return broker.inventory().devices[0]
def only():
    return broker.leases()[0]
def help():
    helper = Helper(nvml, Groups(groups, remove=shutil.rmtree))
    listener = Listener(groups / "dmem.sock", helper)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
"""


class Box:
    """A host with a fake driver, the stub of MPS and a folder for control groups, and a
    broker in a child process.
    """

    def __init__(self, fake_nvml: Any, stand: Stand, groups: Path) -> None:
        self._nvml, self.stand, self.groups = fake_nvml, stand, groups

    def start(self, state: str = NEW + GPU) -> Any:
        self.ask = self._nvml.python(state, SETUP)
        return self.ask

    def with_groups(self, *, helper: bool = True) -> None:
        (self.groups / "cgroup.controllers").write_text("cpu dmem\n")
        (self.groups / "dmem.capacity").write_text(
            "nvidia/00000000:01:00.0/vidmem 85899345920\n"
        )
        if helper:
            self.ask.run("help()")

    def change(self, state: str) -> None:
        self._nvml.change(state)


@pytest.fixture
def box(
    fake_nvml: Any,
    stand: Stand,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Box:
    stand.tell(gpus={"GPU-0": H200, "GPU-1": H200})
    groups = tmp_path_factory.mktemp("cg")
    monkeypatch.setenv("FAKE_CGROUP", str(groups))
    monkeypatch.setenv("MPS_ROOT", str(stand.root))
    return Box(fake_nvml, stand, groups)


@pytest.fixture
def client() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "120"]) as process:
        yield process
        process.kill()


# -- the level -------------------------------------------------------------------------


def test_an_old_driver_reaches_l1_and_a_new_one_l2(box: Box) -> None:
    ask = box.start(OLD + GPU)
    result = ask("device()")
    assert result.level.value == "L1"
    assert (
        dict(result.why_not)["L2"]
        == "MPS namespaces need driver 615 or newer, and this is 580.65.06"
    )
    box.change(NEW + GPU)
    ask.run("clock.advance(100)")
    result = ask("device()")
    assert result.level.value == "L2"
    assert "control groups v2 are not mounted" in dict(result.why_not)["L3"]


def test_a_host_with_dmem_and_the_helper_reaches_l3(box: Box) -> None:
    ask = box.start()
    box.with_groups(helper=False)
    assert "does not listen at" in dict(ask("device()").why_not)["L3"]
    box.with_groups()
    ask.run("clock.advance(100)")
    assert ask("device()").level.value == "L3"
    (box.groups / "dmem.capacity").write_text(
        "nvidia/00000000:09:00.0/vidmem 85899345920\n"
    )
    ask.run("clock.advance(100)")
    assert "no dmem controller for this GPU" in dict(ask("device()").why_not)["L3"]


def test_a_clock_that_is_set_back_stops_nothing(box: Box) -> None:
    ask = box.start(OLD + GPU)
    ask.run("device()")
    box.change(NEW + GPU)
    ask.run("clock.advance(-100000)")
    assert ask("device()").level.value == "L2"


def test_another_daemon_in_exclusive_mode_leaves_caps_alone(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = box.stand.root.parent / "other"
    (other / "p").mkdir(parents=True)
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "GPU-0",
        "CUDA_MPS_PIPE_DIRECTORY": str(other / "p"),
        "CUDA_MPS_LOG_DIRECTORY": str(other),
    }
    subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, check=True)
    try:
        result = box.start(NEW + GPU.replace("\n", " mode=3\n"))("device()")
    finally:
        subprocess.run(
            ["nvidia-cuda-mps-control"], input=b"quit\n", env=environment, check=True
        )
    assert result.level.value == "L0"
    assert "another MPS daemon (process " in dict(result.why_not)["L1"]


def test_a_gpu_that_is_prohibited_is_out_of_use_and_an_exclusive_one_says_what_follows(
    box: Box,
) -> None:
    box.stand.tell(server_fails=[])
    ask = box.start(NEW + GPU.replace("\n", " mode=2\n"))
    result = ask("device()")
    assert "is in compute mode PROHIBITED, in which no process" in result.problem
    box.change(NEW + GPU.replace("\n", " mode=3\n"))
    ask.run("clock.advance(100)")
    assert ask("device().problem") == ""
    assert ask("prepared('1/2').enforced_by.value") == "L0"
    assert "one process at a time can use it without MPS" in ask("device().advice")


def test_a_share_that_a_context_would_fill_is_refused(box: Box) -> None:
    ask = box.start()
    with pytest.raises(
        Unsatisfiable, match=r"a share of a GPU needs at least 1\.0 GiB here"
    ):
        ask("held('1/1000')")
    assert ask("prepared('1GiB').enforced_by").is_by_mps


def test_a_host_without_mps_is_as_it_was(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ask = box.start()
    assert ask("device()").level.value == "L0"
    assert ask("prepared('1/2').enforced_by.value") == "L0"
    assert ask("conditions_text(only().conditions)") == ""
    assert not box.stand.root.exists()


# -- what a process is given -----------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "level", "share"), [(OLD, "L1", 50), (NEW, "L2", 32)]
)
def test_a_share_is_given_its_server_and_says_what_must_be_found(
    box: Box, driver: str, level: str, share: int
) -> None:
    ask = box.start(driver + GPU)
    prepared = ask("prepared('1/4')")
    assert prepared.enforced_by.value == level
    assert prepared.environment["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    assert prepared.environment["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"0={20 * 1024}M"
    assert prepared.environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
    assert (
        prepared.environment["AISTACK_MEMORY_FRACTION"] == "0.243750"
    )  # of all the GPU has, which it is shown
    assert prepared.expects == Expectation(
        visible=("GPU-0",),
        memory_total=80 * GIB,
        memory_free=20 * GIB,
        multiprocessors=share,
        mps=True,
    )
    assert (
        ask("only().enforced_by.value"),
        ask("conditions_text(only().conditions)"),
    ) == (level, "")
    assert os.path.exists(prepared.environment["CUDA_MPS_PIPE_DIRECTORY"] + "/control")
    ask.run("broker.release(only().id, only().token)")
    assert box.stand.running() is None


def test_a_whole_gpu_and_an_instance_never_see_mps(box: Box) -> None:
    mig = "mig gpu=1 uuid=MIG-a gi=7 slot=0 slices=1 memory_mb=9728 sms=16\n"
    ask = box.start(
        NEW + GPU + GPU.replace("GPU-0", "GPU-1").replace("\n", " mig=1\n") + mig
    )
    whole, instance = ask("prepared('1', 'a')"), ask("prepared('1g.10gb', 'b')")
    for prepared in (whole, instance):
        assert not {name for name in prepared.environment if "MPS" in name}
    assert (whole.enforced_by.value, instance.enforced_by.value) == ("whole", "L4")
    assert not box.stand.root.exists()


def test_a_lease_that_may_be_suspended_is_kept_away_from_every_daemon(box: Box) -> None:
    ask = box.start()
    prepared = ask(
        "broker.devices.prepare(replace(held('1/2'), residence=DeviceState()))"
    )
    assert (prepared.enforced_by.value, prepared.conditions) == ("L0", ())
    assert prepared.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/dev/null"
    assert not box.stand.root.exists()


def test_advisory_is_what_an_admin_may_choose(box: Box) -> None:
    ask = box.start()
    ask.run("from jupyter_aistack.providers.registry import build_providers")
    ask.run("plain = build_providers('gpu', enforcement='advisory')[0]")
    result = ask("plain.discover('box')[0]")
    assert result.level.value == "L0"
    assert 'AIStack.enforcement is "advisory"' in dict(result.why_not)["L1"]


def test_shares_of_several_gpus_are_held_by_caps_and_say_why(box: Box) -> None:
    ask = box.start(NEW + TWO)
    assert ask("prepared('1/2x2').enforced_by.value") == "L0"
    assert (
        ask("conditions_text(only().conditions)")
        == f"{REDUCED}: a process can use the MPS server of one GPU, and this lease has several"
    )


def test_a_process_is_held_to_one_lease(box: Box) -> None:
    ask = box.start(NEW + TWO)
    ask("prepared('1/2')")
    with pytest.raises(PrepareFailed, match="MPS holds this process to its lease"):
        ask("prepared('1/4')")
    assert ask("broker.leases(live=False)[0].outcome") is Outcome.FAILED
    ask("prepared('1/4', 'kernel-2')")


def test_the_server_tells_and_ends_the_clients_of_a_lease(box: Box) -> None:
    ask = box.start()
    directory = ask("prepared('1/2').environment")["CUDA_MPS_PIPE_DIRECTORY"]
    box.stand.tell(clients=[[os.getpid(), Path(directory).name]])
    assert ask("broker.clients(only())") == {os.getpid()}
    ask("broker.terminate(only(), pid)", pid=os.getpid())
    assert box.stand.dump()["terminated"] == [os.getpid()]
    box.stand.tell(clients=[])


@pytest.mark.parametrize("driver", [OLD, NEW])
def test_a_client_is_ended_by_its_server_though_its_lease_was_taken_back(
    box: Box, driver: str, client: subprocess.Popen[bytes]
) -> None:
    ask = box.start(driver + GPU)
    directory = ask("prepared('1/2').environment")["CUDA_MPS_PIPE_DIRECTORY"]
    box.stand.tell(clients=[[client.pid, Path(directory).name]])
    ask.run("lease = only(); broker.release(lease.id, lease.token)")
    assert ask("broker.clients(lease)") == {client.pid}
    ask.run("broker.terminate(lease, pid)", pid=client.pid)
    assert box.stand.dump()["terminated"] == [client.pid]
    box.stand.tell(clients=[])
    ask.run("mps.check()")
    assert box.stand.running() is None
    assert ask("broker.clients(lease)") is None


def test_a_lease_without_a_server_has_no_clients_to_tell(box: Box) -> None:
    ask = box.start()
    ask("prepared('1')")
    assert ask("broker.clients(only())") is None
    with pytest.raises(ProviderError, match="held by no MPS server"):
        ask("broker.terminate(only(), 1)")


def test_our_own_server_is_no_stranger_on_the_gpu(box: Box) -> None:
    ask = box.start()
    ask("prepared('1/2')")
    running = box.stand.running()
    assert running is not None
    line = (
        "process gpu=0 pid={} memory=314572800 name=/usr/bin/nvidia-cuda-mps-server\n"
    )
    box.change(NEW + GPU + line.format(running.pid))
    assert ask("device().foreign_memory_bytes") == 0
    box.change(NEW + GPU + line.format(1))
    assert ask("device().foreign_memory_bytes") == 300 * MIB


def test_work_that_is_counted_as_the_servers_is_nobodys_leisure(
    box: Box, client: subprocess.Popen[bytes]
) -> None:
    ask = box.start()
    ask("prepared('1/2')")
    running = box.stand.running()
    assert running is not None
    line = "process gpu=0 pid={} memory=1048576 sm={} type={} name=/usr/bin/python3\n"
    asked = (
        "usage(gpus, {'l': only()}, {'l': pids})['l'].utilization",
        "works(gpus, {'l': only()}, {device().id: device()}, pids, clock() - 1)",
    )

    def seen(server: int, own: int, kind: str = "M") -> list[Any]:
        box.change(
            NEW
            + GPU
            + line.format(running.pid, server, "C")
            + line.format(client.pid, own, kind)
        )
        return [ask(each, pids=frozenset({client.pid})) for each in asked]

    assert seen(40, 0) == [0.4, None]
    assert seen(40, 30, "C") == [pytest.approx(0.3), True]
    assert seen(0, 0) == [0, False]


def test_a_daemon_left_behind_by_a_crash_is_ended(box: Box) -> None:
    first = box.start()
    first("prepared('1/2')")
    running = box.stand.running()
    assert running is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(first.pid, None))
    second = box.start()
    second.run("device(); mps.check()")
    assert not running.is_alive


# -- the ways down ---------------------------------------------------------------------


def test_mps_that_does_not_start_leaves_caps_and_a_sentence_that_stays(
    box: Box,
) -> None:
    box.stand.tell(refuse_start="no compatible devices")
    ask = box.start()
    prepared = ask("prepared('1/2')")
    assert prepared.enforced_by.value == "L0"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in prepared.environment
    assert prepared.expects.memory_free is None
    note = ask("conditions_text(only().conditions)")
    assert note.startswith(REDUCED)
    assert "no compatible devices" in note
    ask.run("broker.activate(only().id, only().token, verified=True)")
    assert ask("conditions_text(only().conditions)") == note
    result = ask("device()")
    assert result.level.value == "L0"
    assert "MPS could not be started" in dict(result.why_not)["L1"]
    box.stand.tell(refuse_start="")
    ask.run("clock.advance(100)")
    assert ask("device()").level.value == "L2"
    assert (
        ask("broker.prepare(only()).enforced_by.value") == "L0"
    )  # what runs already stays what it is
    assert ask("conditions_text(only().conditions)") == note
    assert ask("prepared('1/4', 'kernel-2').enforced_by.value") == "L2"


@pytest.mark.parametrize("driver", [OLD, NEW])
def test_a_server_that_does_not_come_up_costs_no_lease(box: Box, driver: str) -> None:
    box.stand.tell(server_fails=[])
    ask = box.start(driver + GPU)
    prepared = ask("prepared('1/2')")
    assert prepared.enforced_by.value == "L0"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in prepared.environment
    assert ask("prepared('1/4', 'kernel-2').enforced_by.value") == "L0"
    note = ask("conditions_text(only().conditions)")
    assert note.startswith(REDUCED)
    assert "exited with status 1" in note
    result = ask("device()")
    assert (result.level.value, result.problem) == ("L0", "")
    why = dict(result.why_not)["L1"]
    assert why.startswith("MPS could not be started: the MPS server of GPU 0")
    assert "(Server " in why
    box.stand.tell(server_fails=None)
    ask.run("clock.advance(100)")
    assert ask("device()").level.is_by_mps
    assert ask("prepared('1/8', 'kernel-3').enforced_by").is_by_mps


def test_where_namespaces_fail_the_level_below_holds_the_lease(box: Box) -> None:
    box.stand.tell(server_fails_in=3)
    ask = box.start()
    assert ask("prepared('1/2').enforced_by.value") == "L1"
    note = ask("conditions_text(only().conditions)")
    assert "ended as soon as it started" in note
    result = ask("device()")
    assert result.level.value == "L1"
    assert "ended as soon as it started" in dict(result.why_not)["L2"]


def test_an_older_daemon_lowers_the_level_and_says_so(box: Box) -> None:
    box.stand.tell(speaks=2)
    ask = box.start()
    assert ask("prepared('1/2').enforced_by.value") == "L1"
    assert "speaks the older protocol" in ask("conditions_text(only().conditions)")


def test_a_fault_closes_the_gpu_for_requests_and_opens_it_again(
    box: Box, client: subprocess.Popen[bytes]
) -> None:
    ask = box.start()
    directory = ask("prepared('1/2').environment")["CUDA_MPS_PIPE_DIRECTORY"]
    box.stand.tell(fault=True, clients=[[client.pid, Path(directory).name]])
    box.stand.log(
        f"Client {{PID: {client.pid}, Context ID: 0}} encountered a fatal GPU error"
    )
    ask.run("mps.check()")
    assert f"process {client.pid} caused a fault" in ask("device().problem")
    assert [
        (fault.device_id, fault.pid) for fault in ask("broker.host_state.faults()")
    ] == [("GPU-0", client.pid)]
    waiting = ask("broker.submit('1/4', holder('kernel-2', pid=os.getppid()))")
    assert waiting.state is RequestState.QUEUED
    with pytest.raises(PrepareFailed, match="was closed"):
        ask("broker.devices.prepare(only())")
    client.kill()
    client.wait()
    box.stand.tell(clients=[], fault=False)
    assert (
        ask("broker.devices.prepare(only()).enforced_by.value") == "L2"
    )  # its kernel starts again: that opens it
    assert ask("device().problem") == ""
    assert ask("broker.host_state.faults()") == ()
    ask.run("broker.cycle()")
    assert (
        ask("broker.request(request_id).state", request_id=waiting.id)
        is RequestState.GRANTED
    )


def test_who_is_started_again_before_the_others_have_ended_keeps_its_lease(
    box: Box, client: subprocess.Popen[bytes]
) -> None:
    ask = box.start()
    directory = ask("prepared('1/2').environment")["CUDA_MPS_PIPE_DIRECTORY"]
    ask.run("broker.activate(only().id, only().token, verified=True)")
    box.stand.tell(fault=True, clients=[[client.pid, "of_another"]])
    ask.run("mps.check()")
    with pytest.raises(PrepareFailed, match="was closed"):
        ask("broker.prepare(only())")
    assert ask("only().state.value") == "active"
    client.kill()
    client.wait()
    box.stand.tell(fault=False, clients=[])
    assert (
        ask("broker.prepare(only()).environment")["CUDA_MPS_PIPE_DIRECTORY"]
        == directory
    )


def test_a_gpu_off_the_bus_has_that_for_its_problem(box: Box) -> None:
    ask = box.start()
    ask("prepared('1/2')")
    box.change(NEW + GPU.replace("\n", " lost=15\n"))
    result = ask("device()")
    assert "fell off the bus" in result.problem
    with pytest.raises(PrepareFailed, match="fell off the bus"):
        ask("broker.devices.prepare(only())")
    ask.run("broker.release(only().id, only().token)")
    assert box.stand.running() is None


# -- control groups --------------------------------------------------------------------


def test_a_control_group_holds_the_process_from_the_moment_it_is_bound(
    box: Box,
) -> None:
    ask = box.start()
    box.with_groups()
    ask.run(
        "lease = held('1/4'); lease = broker.bind(lease.id, lease.token, pid=os.getpid())"
    )
    prepared = ask("broker.prepare(lease)")
    assert prepared.enforced_by.value == "L3"
    # In its group a process is shown its slice alone, so a framework may take nearly
    # all of what it is shown.
    assert float(prepared.environment["AISTACK_MEMORY_FRACTION"]) == pytest.approx(
        0.98, abs=0.01
    )
    assert prepared.expects.memory_free == 20 * GIB
    (group,) = (
        path
        for path in (box.groups / "aistack" / f"u{os.getuid()}").iterdir()
        if path.is_dir()
    )
    assert (
        group / "dmem.max"
    ).read_text() == f"nvidia/00000000:01:00.0/vidmem {20 * GIB}\n"
    assert not (
        group / "cgroup.procs"
    ).exists()  # this process stands in for a kernel to come
    ask.run(
        "broker.bind(lease.id, lease.token, pid=pid, root_pid=pid)", pid=os.getpid()
    )
    assert (group / "cgroup.procs").read_text() == str(os.getpid())
    ask.run("broker.release(lease.id, lease.token)")
    assert not group.exists()


def test_a_process_that_cannot_be_put_into_its_group_is_held_by_mps_and_says_so(
    box: Box,
) -> None:
    ask = box.start()
    box.with_groups()
    ask.run(
        "lease = held('1/4'); lease = broker.bind(lease.id, lease.token, pid=os.getpid())"
    )
    assert ask("broker.prepare(lease).enforced_by.value") == "L3"
    ask.run("shutil.rmtree(groups / 'aistack')")
    ask.run(
        "broker.bind(lease.id, lease.token, pid=pid, root_pid=pid)", pid=os.getpid()
    )
    assert ask("only().enforced_by.value") == "L2"
    assert "there is no group" in ask("conditions_text(only().conditions)")


def test_a_limit_that_may_not_be_set_leaves_the_namespace_and_says_so(box: Box) -> None:
    ask = box.start(NEW + GPU + "fail nvmlDeviceSetMemoryLimits_v1 4\n")
    box.with_groups()
    assert ask("prepared('1/2').enforced_by.value") == "L2"
    assert "the root helper refuses hold" in ask("conditions_text(only().conditions)")
    assert ask("broker.prepare(only()).expects").memory_free == 40 * 1024 * MIB


# -- a ceiling -------------------------------------------------------------------------

CEILINGS = """
from tests.fakes.mps.stub_mps import client_view, told
def in_use(spec, name, up_to=""):
    request = broker.submit(spec, holder(name, pid=os.getppid()), up_to=up_to)
    lease = broker.lease(request.lease_id)
    prepared = broker.prepare(lease)
    broker.activate(lease.id, lease.token, verified=True)
    return lease, prepared
def seen(prepared):
    return client_view(prepared.environment, told())
def pending(lease):
    return [c.text for c in broker.lease(lease.id).conditions if c.kind == "LimitPending"]
"""
ALL = {"mps": True, "multiprocessors": 132, "mib": 80 * 1024}
HALF = {"mps": True, "multiprocessors": 66, "mib": 40 * 1024}


def test_a_namespace_is_lowered_and_raised_under_the_process_it_holds(
    box: Box,
) -> None:
    ask = box.start()
    ask.run(CEILINGS)
    ask.run("first, prepared = in_use('1/4', 'kernel-1', '1/1')")
    assert ask("seen(prepared)") == ALL
    # What it is started with is its ceiling, and the namespace holds it to less.
    limit = "prepared.environment['CUDA_MPS_PINNED_DEVICE_MEM_LIMIT']"
    assert ask(limit) == f"0={80 * 1024}M"
    assert ask("prepared.expects.memory_free") == 80 * GIB

    ask.run("second, other = in_use('1/2', 'kernel-2')")
    assert ask("seen(prepared)") == HALF
    assert ask("seen(other)") == HALF
    ask.run("broker.release(second.id, second.token)")
    assert ask("seen(prepared)") == ALL
    assert ask("pending(first)") == []


def test_an_older_daemon_changes_a_limit_with_the_next_start_and_says_so(
    box: Box,
) -> None:
    ask = box.start(OLD + GPU)
    ask.run(CEILINGS)
    ask.run("first, prepared = in_use('1/4', 'kernel-1', '1/1')")
    assert ask("prepared.environment['CUDA_MPS_ACTIVE_THREAD_PERCENTAGE']") == "100"
    ask.run("second, other = in_use('1/2', 'kernel-2')")
    assert ask("pending(first)") == [
        "another limit: 1/2 from the next start of its process on: what holds it now "
        "cannot be changed while it runs"
    ]
    ask.run("prepared = broker.prepare(broker.lease(first.id))")
    assert ask("prepared.environment['CUDA_MPS_ACTIVE_THREAD_PERCENTAGE']") == "50"
    assert ask("prepared.expects.memory_free") == 40 * GIB
    assert ask("seen(prepared)") == HALF
    assert ask("pending(first)") == []


def test_a_control_group_is_lowered_under_processes_and_raised_without(
    box: Box,
) -> None:
    ask = box.start()
    box.with_groups()
    ask.run("clock.advance(100)")
    ask.run(CEILINGS)
    ask.run("first, prepared = in_use('1/4', 'kernel-1', '1/1')")
    assert ask("prepared.enforced_by.value") == "L3"
    groups = box.groups / "aistack" / f"u{os.getuid()}"
    (group,) = (path for path in groups.iterdir() if path.is_dir())

    def most() -> str:
        return (group / "dmem.max").read_text()

    assert str(80 * GIB) in most()
    ask.run("second, other = in_use('1/2', 'kernel-2')")
    assert str(40 * GIB) in most()
    assert ask("pending(first)") == []

    # The helper raises no limit that processes run under.
    (group / "cgroup.procs").write_text(str(os.getpid()))
    ask.run("broker.release(second.id, second.token)")
    assert str(40 * GIB) in most()
    assert len(ask("pending(first)")) == 1
    (group / "cgroup.procs").write_text("")
    ask.run("broker.prepare(broker.lease(first.id))")
    assert str(80 * GIB) in most()
    assert ask("pending(first)") == []


def test_without_mps_the_frameworks_of_a_kernel_follow(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ask = box.start()
    ask.run(CEILINGS)
    ask.run("first, prepared = in_use('1/4', 'kernel-1', '1/1')")
    share = "broker.preparation(broker.lease(first.id)).environment"
    assert float(ask(f"{share}['AISTACK_MEMORY_FRACTION']")) > 0.9
    ask.run("second, other = in_use('1/2', 'kernel-2')")
    assert float(ask(f"{share}['AISTACK_MEMORY_FRACTION']")) < 0.5
    assert ask("pending(first)") == []
