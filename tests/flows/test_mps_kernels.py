"""The whole way on a real server: the provider of GPUs over a fake driver, a daemon of
MPS, and kernels on CUDA.

From the grant to what is seen from inside, what is told when the daemon breaks, and how
a kernel is taken off the GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

from jupyter_aistack.client.text import lease_remarks
from jupyter_aistack.core.model.units import GIB
from tests.fakes.kernel_server import environment_of, is_ready, write_kernelspec
from tests.fakes.live_server import TOKEN, LiveServer, live_server
from tests.fakes.mps.host import Stand
from tests.fakes.nvml.plugin import FakeNVML
from tests.fakes.waiting import wait_until

GPU = "GPU-11111111-1111-1111-1111-111111111111"
HARDWARE = f"gpu uuid={GPU} name=NVIDIA_H100 memory={20 * GIB} cores={66 * 128}\n"
OLD, NEW = "driver 580.65.06\n", "driver 615.71.09\n"
CUDA = """
import ctypes
driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert driver.cuInit(0) == driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
"""
DEAF = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
ON_CUDA = f"""
import glob, signal, sys, time
def hear(signum, frame):
    said = "".join(open(file).read() for file in glob.glob(sys.argv[2]))
    with open(sys.argv[3], "a") as file:
        print(signal.Signals(signum).name, "terminate" in said, file=file)
    if signum == signal.SIGTERM:
        sys.exit()
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, hear)
{CUDA}
while True:
    time.sleep(1)
"""


@pytest.fixture
def stand(
    tmp_path: Path, driver: str, fake_nvml: FakeNVML, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stand]:
    """What a server that is started now finds: a GPU, its driver and the stub of
    MPS.
    """
    with tempfile.TemporaryDirectory(prefix="mps") as runtime:
        host = Stand(tmp_path, Path(runtime) / "aistack-mps")
        host.tell(gpus={GPU: {"multiprocessors": 66, "mib": 20 * 1024}})
        environment = fake_nvml.environment(NEW + HARDWARE)
        libraries = f"{environment['LD_LIBRARY_PATH']}{os.pathsep}{driver}"
        told = {
            "AISTACK_ENFORCEMENT": "auto",
            "XDG_RUNTIME_DIR": runtime,
            "FAKE_CUDA_COUNT": "1",
        }
        for name, value in {
            **environment,
            **host.environment,
            **told,
            "LD_LIBRARY_PATH": libraries,
        }.items():
            monkeypatch.setenv(name, value)
        yield host
        host.close()


class Host:
    """A live server, and kernels on it that start CUDA and write down what they
    hear.
    """

    def __init__(self, server: LiveServer, stand: Stand, heard: Path) -> None:
        self.server, self.stand, self.heard = server, stand, heard
        argv = [
            "python",
            "-S",
            "-c",
            ON_CUDA,
            "{connection_file}",
            str(stand.root / "*" / "log" / "control.log"),
        ]
        write_kernelspec(
            server.folder / "data", "quarter", {"slice": "1/4"}, [*argv, str(heard)]
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": f"token {TOKEN}",
            "Content-Type": "application/json",
        }
        asked = urllib.request.Request(
            self.server.url + path, data, headers, method=method
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def start(self) -> tuple[str, Any]:
        """A kernel and its lease, once that has been checked and the kernel is a
        client.
        """
        kernel_id = self.ask("POST", "api/kernels", {"name": "quarter"})["id"]
        lease = wait_until(lambda: self.checked(kernel_id))
        wait_until(
            lambda: list(self.stand.root.glob(f"*/p/**/{lease['holder']['pid']}"))
        )
        return kernel_id, lease

    def checked(self, kernel_id: str) -> Any:
        held = [lease for lease in self.leases() if lease["holder"]["id"] == kernel_id]
        return next(
            (
                lease
                for lease in held
                if lease["verified"] is not None or lease["conditions"]
            ),
            None,
        )

    def leases(self) -> Any:
        return self.server.get("aistack/api/v1/leases")["leases"]

    def device(self) -> Any:
        return self.server.get("aistack/api/v1/host")["devices"][0]

    def doctor(self) -> Any:
        asked = [sys.executable, "-m", "jupyter_aistack.cli", "doctor", "--json"]
        environment = {**os.environ, "AISTACK_PROVIDERS": "gpu"}
        done = subprocess.run(
            asked, capture_output=True, text=True, timeout=60, env=environment
        )
        return json.loads(done.stdout)


@pytest.fixture
def host(stand: Stand, tmp_path: Path) -> Iterator[Host]:
    settings = (
        "--AIStack.providers=gpu",
        "--AIStack.cycle_seconds=0.2",
        "--KernelManager.shutdown_wait_time=0.5",
    )
    with live_server(tmp_path / "live", *settings) as server:
        yield Host(server, stand, tmp_path / "heard")


def said_of(lease: Any) -> tuple[str, bool | None, str]:
    return lease["enforced_by"], lease["verified"], lease_remarks(lease)


@pytest.fixture(params=["L1", "L2"])
def level(request: pytest.FixtureRequest, stand: Stand, fake_nvml: FakeNVML) -> str:
    """The level that the host reaches, by its driver."""
    fake_nvml.change((OLD if request.param == "L1" else NEW) + HARDWARE)
    return str(request.param)


def test_a_quarter_is_held_seen_from_inside_and_given_back_through_its_server(
    level: str, host: Host
) -> None:
    kernel_id, lease = host.start()
    assert said_of(lease) == (level, True, "")
    assert host.device()["level"] == level
    assert [device["level"] for device in host.doctor()["devices"]] == [level]
    given = environment_of(lease["holder"]["pid"])
    assert given["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=5120M"
    host.ask("DELETE", f"api/kernels/{kernel_id}")
    heard = host.heard.read_text().split("\n")
    assert "SIGTERM True" in heard, (
        "the server had ended its work before it was asked to end"
    )
    assert heard[0] == "SIGINT False"
    assert host.leases() == []
    wait_until(lambda: host.stand.running(GPU) is None)


def test_a_kernel_whose_slice_was_taken_back_is_ended_through_the_server_it_is_still_a_client_of(
    host: Host,
) -> None:
    kernel_id, lease = host.start()
    host.ask("DELETE", f"aistack/api/v1/leases/{lease['id']}")
    assert host.leases() == []
    host.ask("DELETE", f"api/kernels/{kernel_id}")
    assert "SIGTERM True" in host.heard.read_text()


def test_a_notebook_that_asks_for_its_quarter_later_is_held_as_well_and_let_go_again(
    level: str, host: Host
) -> None:
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_kernelspec(host.server.folder / "data", "plain", {}, argv)
    kernel_id = host.ask("POST", "api/kernels", {"name": "plain"})["id"]
    client = BlockingKernelClient(
        connection_file=str(host.server.folder / "runtime" / f"kernel-{kernel_id}.json")
    )
    client.load_connection_file()
    client.start_channels()
    try:
        wait_until(lambda: is_ready(client))
        ask = "import os, jupyter_aistack\nheld = jupyter_aistack.request('1/4')\n"
        assert (
            output_of(
                client, f"{ask}print(held.enforced_by, held.verified, held.conditions)"
            )
            == f"{level} True ()\n"
        )
        (lease,) = host.leases()
        assert said_of(lease) == (level, True, "")
        assert host.stand.root.name in output_of(
            client, "print(os.environ['CUDA_MPS_PIPE_DIRECTORY'])"
        )
        output_of(client, CUDA)
        look = (
            "print([name for name in os.environ if name.startswith('CUDA_MPS_')],"
            " [os.environ['CUDA_VISIBLE_DEVICES']])"
        )
        assert output_of(client, f"held.release()\n{look}") == "[] ['']\n"
        assert host.leases() == []
        client.execute(DEAF)  # it is in the midst of something when it is ended
        wait_until(
            lambda: (
                "deaf" in client.get_iopub_msg(timeout=30)["content"].get("text", "")
            )
        )
        host.ask("DELETE", f"api/kernels/{kernel_id}")
    finally:
        client.stop_channels()
    logs = "".join(file.read_text() for file in host.stand.root.glob("*/log/control.*"))
    ended = re.findall(r"terminate(?:_client [0-9]+)? ([0-9]+)\n", logs)
    assert ended == [str(lease["holder"]["pid"])], (
        "it was a client until then, though its lease was over"
    )


def output_of(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints."""
    heard: list[str] = []
    reply = client.execute_interactive(
        code,
        output_hook=lambda message: heard.append(message["content"].get("text", "")),
        timeout=60,
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(heard)


def test_pipes_that_are_removed_are_told_to_those_who_use_them(
    level: str, host: Host
) -> None:
    _, lease = host.start()
    shutil.rmtree(next(host.stand.root.glob("*/p")))
    told = wait_until(
        lambda: next((each for each in host.leases() if each["conditions"]), None)
    )
    lost = "lost the directory of its MPS daemon, which was removed; it opens when its processes have ended"
    assert (told["id"], lease_remarks(told)) == (
        lease["id"],
        f"on a GPU that failed: GPU 0 {lost}; restart the kernel",
    )
    assert wait_until(lambda: host.device()["problem"]) == lost


def test_a_killed_daemon_is_told_and_a_kernel_that_is_started_again_has_its_namespace_again(
    stand: Stand, host: Host
) -> None:
    kernel_id, lease = host.start()
    pid = lease["holder"]["pid"]
    log = next(stand.root.glob("*/log/control.log"))
    before = log.read_text().count("namespace list")
    wait_until(
        lambda: log.read_text().count("namespace list") > before
    )  # the watch has seen who is connected
    running = stand.running(GPU)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    told = wait_until(
        lambda: next((each for each in host.leases() if each["conditions"]), None)
    )
    assert (
        f"had its MPS daemon end and start anew; process {pid} must be started again"
        in lease_remarks(told)
    )
    assert host.device()["problem"] == ""
    host.ask("POST", f"api/kernels/{kernel_id}/restart")
    again = wait_until(
        lambda: next((each for each in host.leases() if not each["conditions"]), None)
    )
    assert (again["id"], *said_of(again)) == (lease["id"], "L2", True, "")
    assert again["holder"]["pid"] != pid


def test_a_kernel_with_a_ceiling_yields_to_those_who_come(
    level: str, host: Host
) -> None:
    argv = ["python", "-S", "-c", ON_CUDA, "{connection_file}", "none", str(host.heard)]
    settings = {"slice": "1/4", "up_to": "1/1"}
    write_kernelspec(host.server.folder / "data", "elastic", settings, argv)
    kernel_id = host.ask("POST", "api/kernels", {"name": "elastic"})["id"]
    lease = wait_until(lambda: host.checked(kernel_id))
    assert said_of(lease) == (level, True, "")
    assert (lease["up_to"], lease["limits"][0]["fraction"]) == ("1", "1")

    host.start()  # a quarter, which does not wait for what the first may use
    lease = wait_until(lambda: limited(host, kernel_id, "3/4"))
    share = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
    started = environment_of(lease["holder"]["pid"])
    assert started[share] == "100"
    if level == "L2":
        # The namespace holds it to less than it was started with.
        most = {"multiprocessors": 48, "mib": 15 * 1024}
        seen = wait_until(lambda: host.stand.seen_by(started, **most))
        assert seen["mps"]
        assert lease["conditions"] == []
        return

    lease = wait_until(lambda: pending(host, kernel_id))
    host.ask("POST", f"api/kernels/{kernel_id}/restart")
    lease = wait_until(lambda: not_pending(host, kernel_id))
    assert environment_of(lease["holder"]["pid"])[share] == "75"


def lease_of_kernel(host: Host, kernel_id: str) -> Any:
    held = [lease for lease in host.leases() if lease["holder"]["id"] == kernel_id]
    return held[0]


def limited(host: Host, kernel_id: str, share: str) -> Any:
    """The kernel's lease, once it may use no more than a share."""
    lease = lease_of_kernel(host, kernel_id)
    return lease if lease["limits"][0]["fraction"] == share else None


def pending(host: Host, kernel_id: str) -> Any:
    """The kernel's lease, once it says that its limit waits for a start."""
    lease = lease_of_kernel(host, kernel_id)
    kinds = [condition["kind"] for condition in lease["conditions"]]
    return lease if kinds == ["LimitPending"] else None


def not_pending(host: Host, kernel_id: str) -> Any:
    """The kernel's lease, once its process has started with its limit."""
    lease = lease_of_kernel(host, kernel_id)
    return None if lease["conditions"] else lease
