"""Whole Jupyter servers, as processes: stopped, killed, and with a ledger that cannot
be opened.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.providers.registry import build_providers
from jupyter_aistack.system.processes import parents
from tests.fakes.kernel_server import ALL, SLEEPER, environment_of, write_kernelspec
from tests.fakes.nvml.plugin import fake_nvml_environment
from tests.fakes.waiting import wait_until

TOKEN = "only-for-this-test"
SURVIVOR = ["python", "-S", "-c", "import time; time.sleep(600)"]


class Server:
    """A Jupyter server in a process of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.data = folder / "data"
        paths = {
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
        }
        self._runtime = folder / "runtime"
        (folder / "root").mkdir(parents=True)
        options = [
            "--ServerApp.port=0",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.open_browser=False",
            "--ServerApp.allow_root=True",
            f"--ServerApp.root_dir={folder / 'root'}",
            f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.jpserver_extensions={'jupyter_aistack': True}",
            "--AIStack.cycle_seconds=0.2",
        ]
        env = {
            **os.environ,
            **{name: str(folder / path) for name, path in paths.items()},
            **environment,
        }
        env.setdefault("AISTACK_PROVIDERS", "cpu")
        with (folder / "server.log").open("w") as log:
            command = [sys.executable, "-m", "jupyter_server", *options]
            self.process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, cwd=folder
            )
        self.log = folder / "server.log"
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        file = self._runtime / f"jpserver-{self.process.pid}.json"
        wait(lambda: file.exists() and file.stat().st_size > 0, self.log)
        url: str = json.loads(file.read_text())["url"]
        wait(lambda: self._answers(url), self.log)
        return url

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            urlopen(f"{url}api", timeout=5).close()
        except URLError:
            return False
        return True

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of a REST call, errors included."""
        headers = {
            "Authorization": f"token {TOKEN}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"{self.url}{path}", data=data, headers=headers, method=method
        )
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            return error.code, json.loads(error.read())

    def stop(self) -> int:
        """SIGTERM; the exit status. Fails when it does not end within 15 seconds."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


def wait(condition: Callable[[], Any], log: Path) -> None:
    wait_until(condition, otherwise=log.read_text)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends those that a test has left."""
    servers: list[Server] = []

    def make(**environment: str) -> Server:
        servers.append(Server(tmp_path / f"server-{len(servers)}", **environment))
        return servers[-1]

    yield make
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def second_broker(own_ledger: str) -> Iterator[Broker]:
    """A broker of another process on the servers' ledger."""
    broker = Broker(open_ledger(own_ledger), build_providers("cpu"))
    yield broker
    broker.close()


def test_server_ends_when_told_to_after_launches_that_were_refused_or_failed(
    start: Callable[..., Server], second_broker: Broker
) -> None:
    server = start()
    write_kernelspec(server.data, "wrong", {"slice": "cpu:1000"}, SLEEPER)
    write_kernelspec(
        server.data, "broken", {"slice": "cpu:1"}, ["/there/is/no/such/program"]
    )
    write_kernelspec(server.data, "good", {"slice": "cpu:1"}, SLEEPER)
    assert server.call("POST", "api/kernels", {"name": "wrong"})[0] == 503
    assert server.call("POST", "api/kernels", {"name": "broken"})[0] == 500
    assert second_broker.leases() == ()
    status, kernel = server.call("POST", "api/kernels", {"name": "good"})
    assert status == 201
    (lease,) = second_broker.leases()
    assert lease.holder.id == kernel["id"]
    server.stop()
    assert second_broker.lease(lease.id).outcome is Outcome.RELEASED


@pytest.mark.skipif(ALL < 2, reason="two kernels need two cores")
def test_leases_of_a_killed_server_live_as_long_as_their_kernels(
    start: Callable[..., Server], second_broker: Broker
) -> None:
    server = start()
    python = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_kernelspec(server.data, "survivor", {"slice": "cpu:1"}, SURVIVOR)
    write_kernelspec(server.data, "attentive", {"slice": "cpu:1"}, python)
    kernels = {
        name: server.call("POST", "api/kernels", {"name": name})[1]["id"]
        for name in ("survivor", "attentive")
    }
    leases = {lease.holder.id: lease for lease in second_broker.leases()}
    survivor, python_lease = leases[kernels["survivor"]], leases[kernels["attentive"]]
    server.process.kill()
    server.process.wait()
    # A Python kernel notices that its server is gone and ends; the other does not, and
    # keeps what it uses.
    wait(
        lambda: (
            second_broker.maintain() or not second_broker.lease(python_lease.id).is_live
        ),
        server.log,
    )
    assert second_broker.lease(python_lease.id).outcome is Outcome.ABANDONED
    assert second_broker.lease(survivor.id).is_live
    os.kill(survivor.holder.pid or 0, signal.SIGKILL)
    wait(
        lambda: (
            second_broker.maintain() or not second_broker.lease(survivor.id).is_live
        ),
        server.log,
    )
    assert second_broker.lease(survivor.id).outcome is Outcome.ABANDONED


def test_kernels_start_without_a_ledger(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "not-a-folder").write_text("")
    server = start(AISTACK_LEDGER=f"sqlite:///{tmp_path}/not-a-folder/ledger.sqlite")
    write_kernelspec(server.data, "one", {"slice": "cpu:1"}, SURVIVOR)
    write_kernelspec(server.data, "plain", {}, SURVIVOR)
    for name in ("one", "plain"):
        status, kernel = server.call("POST", "api/kernels", {"name": name})
        assert status == 201
        assert "starts" in server.log.read_text()
        assert server.call("DELETE", f"api/kernels/{kernel['id']}")[0] == 204
    server.stop()


def test_on_a_host_with_gpus_a_kernel_sees_its_share_or_nothing(
    start: Callable[..., Server], own_ledger: str, driver: str, tmp_path: Path
) -> None:
    uuid = "GPU-11111111-1111-1111-1111-111111111111"
    gpu = fake_nvml_environment(
        tmp_path,
        f"gpu uuid={uuid} name=NVIDIA_H200 memory={128 << 30} cc=9.0 cores=16896\n",
    )
    libraries = f"{gpu['LD_LIBRARY_PATH']}{os.pathsep}{driver}"
    server = start(**{**gpu, "LD_LIBRARY_PATH": libraries, "AISTACK_PROVIDERS": "gpu"})
    write_kernelspec(server.data, "plain", {}, SURVIVOR)
    write_kernelspec(
        server.data, "quarter", {"slice": "1/4"}, SURVIVOR, env={"FAKE_CUDA_COUNT": "1"}
    )
    write_kernelspec(
        server.data,
        "leaky",
        {"slice": "1/4"},
        SURVIVOR,
        env={"CUDA_VISIBLE_DEVICES": "0,1"},
    )
    kernels = {
        name: server.call("POST", "api/kernels", {"name": name})[1]["id"]
        for name in ("plain", "quarter", "leaky")
    }
    ledger = open_ledger(own_ledger)

    def leases() -> dict[str, Lease]:
        return {lease.holder.id: lease for lease in ledger.leases(time.time())}

    wait(
        lambda: [lease.state for lease in leases().values()] == [LeaseState.ACTIVE] * 2,
        server.log,
    )
    quarter, leaky = leases()[kernels["quarter"]], leases()[kernels["leaky"]]
    ledger.close()
    environment = environment_of(quarter.holder.pid or 0)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == (
        uuid,
        "PCI_BUS_ID",
    )
    assert (quarter.verified, conditions_text(quarter.conditions)) == (True, "")
    assert environment_of(leaky.holder.pid or 0)["CUDA_VISIBLE_DEVICES"] == uuid
    assert leaky.verified is False
    assert conditions_text(leaky.conditions).startswith(
        "not enforced: the process sees devices"
    )
    plain = next(
        env
        for env in map(environment_of, children(server.process.pid))
        if env["AISTACK_KERNEL"] == kernels["plain"]
    )
    assert (plain["CUDA_VISIBLE_DEVICES"], plain["CUDA_DEVICE_ORDER"]) == (
        "",
        "PCI_BUS_ID",
    )
    server.stop()


def children(pid: int) -> list[int]:
    return [child for child, parent in parents().items() if parent == pid]
