"""Two notebooks take turns on one GPU: a live server, the provider over a fake NVML,
the helper over a fake driver.

What a kernel holds is a line of the fake NVML's state; the helper takes it away and
brings it back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from jupyter_aistack.core.model.units import GIB
from tests.fakes.child import write_state
from tests.fakes.kernel_server import write_kernelspec
from tests.fakes.live_server import TOKEN, LiveServer, live_server
from tests.fakes.nvml.plugin import fake_nvml_environment
from tests.paths import FAKES

UUID = "GPU-11111111-1111-1111-1111-111111111111"
GPU = f"gpu uuid={UUID} name=NVIDIA_H200 memory={4 * GIB} used=0 cc=9.0 cores=16896\n"
DRIVER = "580.65.06"
FAKE = FAKES / "fake_checkpoint.py"
CONFIG = """
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
CheckpointClient.__init__.__defaults__ = ({command!r},)
c.AIStack.providers = "gpu"
c.AIStack.cycle_seconds = 0.2
c.KernelManager.shutdown_wait_time = 0.5
c.AIStack.suspend = {{"warm": 0.1, "retry": 1.0}}
c.AIStack.queues = {{"default": {{"suspend": True}}}}
"""
KERNEL = [
    *("env", "-u", "JPY_PARENT_PID", sys.executable, "-m", "ipykernel_launcher"),
    *("-f", "{connection_file}", "--ext", "jupyter_aistack.magics"),
]
"""One that outlives its server."""
SETUP = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
class Model: pass
Model.__module__ = "torch.nn"
model = Model()
model.number = {number}
"""


class Host:
    """The machine: a GPU, a driver that outlives servers, and a server.

    Args:
        folder: of the machine.
        nvml: the file with the state of the fake NVML.
    """

    def __init__(self, folder: Path, nvml: Path) -> None:
        self.folder, self.nvml, self.states = folder, nvml, folder / "states.json"
        self.states.write_text("{}")
        self.server: LiveServer | None = None
        self.kernels: list[int] = []

    def options(self) -> str:
        """Those of a server whose helper speaks to the fake driver, on which the
        self-test has passed.
        """
        command = (sys.executable, str(FAKE), str(self.states), "{}", "running")
        config = self.folder / "server_config.py"
        config.write_text(CONFIG.format(command=command))
        (self.folder / "server").mkdir(exist_ok=True)
        passed = {f"{DRIVER} {UUID} {os.getuid()}": time.time()}
        (self.folder / "server" / "suspend-tested.json").write_text(json.dumps(passed))
        return f"--config={config}"

    def post(self, path: str, body: str = "{}") -> Any:
        """What the server answers."""
        assert self.server is not None
        headers = {
            "Authorization": f"token {TOKEN}",
            "Content-Type": "application/json",
        }
        asked = urllib.request.Request(
            self.server.url + path, data=body.encode(), headers=headers, method="POST"
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def delete(self, kernel_id: str) -> None:
        assert self.server is not None
        headers = {"Authorization": f"token {TOKEN}"}
        url = f"{self.server.url}api/kernels/{kernel_id}"
        urllib.request.urlopen(
            urllib.request.Request(url, headers=headers, method="DELETE"), timeout=60
        ).close()

    def start(self, number: int, held_bytes: int) -> tuple[str, int]:
        """A notebook that keeps so much on the GPU; its kernel's id and process."""
        kernel_id = str(self.post("api/kernels", '{"name": "whole"}')["id"])
        pid = int(self.lease(kernel_id)["holder"]["root_pid"])
        self.kernels.append(pid)
        self.run(kernel_id, SETUP.format(number=number))
        state = self.nvml.read_text().replace("used=0", f"used={held_bytes}")
        write_state(
            self.nvml, state + f"process gpu=0 pid={pid} memory={held_bytes} type=C\n"
        )
        return kernel_id, pid

    def run(self, kernel_id: str, code: str) -> str:
        """What a cell shows."""
        assert self.server is not None
        client = BlockingKernelClient(
            connection_file=str(
                self.server.folder / "runtime" / f"kernel-{kernel_id}.json"
            )
        )
        client.load_connection_file()
        client.start_channels()
        texts: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            texts.append(content.get("text") or json.dumps(content.get("data") or ""))

        try:
            client.wait_for_ready(timeout=60)
            reply = client.execute_interactive(code, output_hook=hear, timeout=60)
        finally:
            client.stop_channels()
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(texts)

    def lease(self, kernel_id: str) -> dict[str, Any]:
        """A kernel's lease as the server tells it."""
        assert self.server is not None
        leases = self.server.get("aistack/api/v1/leases")["leases"]
        return next(lease for lease in leases if lease["holder"]["id"] == kernel_id)

    def until(self, kernel_id: str, standing: str) -> dict[str, Any]:
        """Where a kernel's state is, once it stands so."""
        deadline = time.monotonic() + 60
        while True:
            residence: dict[str, Any] = self.lease(kernel_id)["residence"]
            if residence["standing"] == standing:
                return residence
            assert self.server is not None
            assert time.monotonic() < deadline, (
                residence,
                (self.server.folder / "log").read_text(),
            )
            time.sleep(0.05)

    def held(self) -> dict[int, int]:
        """What the driver lists with memory, by process."""
        lines = (
            dict(part.split("=") for part in line.split()[1:])
            for line in self.nvml.read_text().splitlines()
            if line.startswith("process ")
        )
        held = {int(line["pid"]): int(line["memory"]) for line in lines}
        return {pid: size for pid, size in held.items() if size}

    def state(self, pid: int) -> str:
        return str(json.loads(self.states.read_text()).get(str(pid), "running"))


@pytest.fixture
def host(
    tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    variables = fake_nvml_environment(tmp_path, GPU)
    monkeypatch.setenv(
        "LD_LIBRARY_PATH", f"{variables['LD_LIBRARY_PATH']}{os.pathsep}{driver}"
    )
    monkeypatch.setenv("FAKE_NVML_STATE", variables["FAKE_NVML_STATE"])
    entry = Host(tmp_path, Path(variables["FAKE_NVML_STATE"]))
    write_kernelspec(
        tmp_path / "server" / "data",
        "whole",
        {"slice": "1", "wait_seconds": 30},
        KERNEL,
    )
    yield entry
    for pid in entry.kernels:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def serve(host: Host, do: Callable[[], None]) -> None:
    """Do something while a server runs."""
    with live_server(host.folder / "server", host.options()) as host.server:
        do()


def test_two_notebooks_take_turns_and_one_that_is_suspended_outlives_its_server(
    host: Host,
) -> None:
    ann, ben = ("", 0), ("", 0)

    def take_turns() -> None:
        nonlocal ann, ben
        ann = host.start(7, GIB)
        assert host.until(ann[0], "warm")["why"] == ""
        ben = host.start(8, GIB + GIB // 2)
        gone = host.until(ann[0], "suspended")
        assert (gone["tier"], gone["state_bytes"]) == ("checkpoint", GIB)
        assert (host.held(), host.state(ann[1])) == (
            {ben[1]: GIB + GIB // 2},
            "checkpointed",
        )
        host.until(ben[0], "warm")

        shown = host.run(ann[0], "print('number', model.number)")
        assert "number 7" in shown
        assert "Resuming" in shown
        assert host.until(ben[0], "suspended")["state_bytes"] == GIB + GIB // 2
        assert host.until(ann[0], "warm")["state_bytes"] is None
        assert (host.held(), host.state(ann[1])) == ({ann[1]: GIB}, "running")

        os.kill(ann[1], signal.SIGSTOP)  # it hears nothing, and has to be killed
        host.delete(ann[0])
        assert host.state(ann[1]) == "checkpointed", (
            "it was restored, and is not killed with its state on the GPU"
        )
        assert host.server is not None
        host.server.process.kill()
        host.server.process.wait()

    def go_on() -> None:
        assert host.until(ben[0], "suspended")["state_bytes"] == GIB + GIB // 2
        host.post(f"aistack/api/v1/leases/{host.lease(ben[0])['id']}/resume")
        host.until(ben[0], "warm")
        assert (host.held(), host.state(ben[1])) == (
            {ben[1]: GIB + GIB // 2},
            "running",
        )

    serve(host, take_turns)
    serve(host, go_on)
