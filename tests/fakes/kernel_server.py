"""Kernels on a real server with the extension, its host the CPU of this machine.

Most tests need a process more than a Python kernel, and start one that only sleeps: it
is there in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import ConnectionFileMixin
from traitlets.config import Config

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease, LeaseState
from tests.fakes.waiting import until

IPYKERNEL = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
WITH_MAGICS = [*IPYKERNEL, "--ext=jupyter_aistack.magics"]
SLEEPER = ["python", "-S", "-c", "import time; time.sleep(600)", "{connection_file}"]
ALL = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)
WriteKernel = Callable[..., str]


def write_kernelspec(
    data_dir: Path,
    name: str,
    config: Mapping[str, Any] | None,
    argv: list[str],
    env: Mapping[str, str] | None = None,
) -> None:
    """Install a kernelspec; with `config`, one that our provisioner launches."""
    folder = data_dir / "kernels" / name
    folder.mkdir(parents=True, exist_ok=True)
    stanza = {"provisioner_name": "aistack-provisioner", "config": dict(config or {})}
    metadata = {} if config is None else {"kernel_provisioner": stanza}
    spec = {
        "argv": argv,
        "display_name": name,
        "language": "python",
        "env": dict(env or {}),
        "metadata": metadata,
    }
    (folder / "kernel.json").write_text(json.dumps(spec))


@pytest.fixture
def kernelspec(jp_environ: None, jp_data_dir: Path) -> WriteKernel:
    """Installs a kernelspec and returns its name: ``kernelspec("half",
    slice="cpu:1")``.
    """

    def write(
        name: str,
        *,
        argv: list[str] = SLEEPER,
        env: Mapping[str, str] | None = None,
        **config: Any,
    ) -> str:
        write_kernelspec(jp_data_dir, name, config, argv, env)
        return name

    return write


@pytest.fixture
def jp_server_config() -> Config:
    """Tests turn the broker's crank themselves: its own turns come too seldom to meet
    the moment of a crash.
    """
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"jupyter_aistack": True}},
            "AIStack": {"providers": "cpu", "cycle_seconds": 60.0},
            "KernelRestarter": {"time_to_dead": 0.2},
        }
    )


@pytest.fixture
def no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that forget what a sleeping kernel never took; they would hold up each
    test's end for a second.
    """
    connect = ConnectionFileMixin._create_connected_socket

    def connect_without_linger(self: Any, *args: Any, **options: Any) -> Any:
        socket = connect(self, *args, **options)
        socket.linger = 0
        return socket

    monkeypatch.setattr(
        ConnectionFileMixin, "_create_connected_socket", connect_without_linger
    )


@pytest.fixture
def server(
    no_linger: None, jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[Any]:
    """The server with its start hooks run, which pytest-jupyter leaves out; its kernels
    are ended afterwards.
    """
    run, manager = jp_asyncio_loop.run_until_complete, jp_serverapp.extension_manager
    run(manager.start_all_extensions())
    yield jp_serverapp
    run(end_kernels(jp_serverapp.kernel_manager))
    run(manager.stop_all_extensions())
    jp_serverapp.web_app.settings["aistack"].close()


async def end_kernels(kernels: Any) -> None:
    """Shut all kernels down, each once its start or restart is over: Jupyter cannot end
    one in between.
    """
    for kernel_id in list(kernels.list_kernel_ids()):
        await until(kernels.get_kernel(kernel_id).ready.done)
        await kernels.shutdown_kernel(kernel_id, now=True)


@pytest.fixture
def kernels(server: Any) -> Any:
    """The server's kernel manager."""
    return server.kernel_manager


@pytest.fixture
def broker(server: Any) -> Broker:
    broker = server.web_app.settings["aistack"].broker
    assert isinstance(broker, Broker)
    return broker


def lease_of(broker: Broker, kernel_id: str) -> Lease | None:
    """The kernel's one live lease."""
    leases = [lease for lease in broker.leases() if lease.holder.id == kernel_id]
    assert len(leases) <= 1
    return leases[0] if leases else None


def is_ready(client: BlockingKernelClient) -> bool:
    """Whether a kernel replies, and what it prints arrives here. The client's own
    waiting takes a kernel whose heartbeat is a second late for dead.
    """
    client.kernel_info()
    try:
        reply = client.get_shell_msg(timeout=1)
        client.get_iopub_msg(timeout=1)
    except Empty:
        return False
    return bool(reply["msg_type"] == "kernel_info_reply")


async def active(broker: Broker, kernel_id: str) -> Lease:
    """The kernel's lease once it has been checked from inside."""

    def current_lease() -> Lease | None:
        lease = lease_of(broker, kernel_id)
        return lease if lease and lease.state is LeaseState.ACTIVE else None

    lease: Lease = await until(current_lease)
    return lease


def pid_of(kernels: Any, kernel_id: str) -> int:
    pid = kernels.get_kernel(kernel_id).provisioner.pid
    assert isinstance(pid, int)
    return pid


def environment_of(pid: int) -> dict[str, str]:
    """The variables a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if entry)


@asynccontextmanager
async def client_of(manager: Any) -> AsyncIterator[Any]:
    """A connected client of one kernel's manager, once the kernel answers."""
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        yield client
    finally:
        client.stop_channels()


async def evaluate(client: Any, expression: str) -> Any:
    """The value of a Python expression in the kernel, carried as JSON."""
    messages: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            messages.append(message["content"]["text"])

    code = f"import json, os, sys; print(json.dumps({expression}))"
    reply = await client.execute_interactive(code, output_hook=hear, timeout=30)
    assert reply["content"]["status"] == "ok", reply["content"]
    return json.loads("".join(messages))
