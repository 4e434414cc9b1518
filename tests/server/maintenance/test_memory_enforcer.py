"""What happens to the kernel of a lease that breaks its bound, and that nothing happens
to its neighbours.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client import BlockingKernelClient

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.client.text import lease_remarks
from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.kernel import teardown
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.system.processes import is_alive
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import holder
from tests.fakes.live_server import LiveServer, live_server, post, wait_for_kernel
from tests.fakes.scripted import Lists, exchange_providers
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from tests.fakes.nvml.plugin import FakeNVML

StartKernel = Callable[[], Awaitable[tuple[str, int]]]
CHILD = [
    "import subprocess, sys",
    "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])",
    "print(child.pid)",
]


@pytest.fixture
def lists(context: ServerContext, monkeypatch: pytest.MonkeyPatch) -> Lists:
    """The host's only device."""
    monkeypatch.setattr("jupyter_aistack.broker.memory_watchdog.GPU_SECONDS", 0.01)
    monkeypatch.setattr(teardown, "SURE_SECONDS", 0.1)
    provider, broker = Lists(), context.broker
    exchange_providers(broker, provider)
    return provider


@pytest.fixture
def start(
    server: Any,
    jp_fetch: Any,
    context: ServerContext,
    jp_asyncio_loop: asyncio.AbstractEventLoop,
) -> Iterator[StartKernel]:
    """Starts a Python kernel that holds half the device."""
    started: list[str] = []

    async def begin() -> tuple[str, int]:
        response = await jp_fetch(
            "api", "kernels", method="POST", body='{"name": "python3"}'
        )
        kernel_id = str(json.loads(response.body)["id"])
        started.append(kernel_id)
        pid = server.kernel_manager.get_kernel(kernel_id).provisioner.pid
        context.broker.submit(
            "1/2",
            holder(kernel_id, user=current_user(), pid=pid, host=context.broker.host),
        )
        return kernel_id, pid

    yield begin
    for kernel_id in started:
        jp_asyncio_loop.run_until_complete(
            server.kernel_manager.shutdown_kernel(kernel_id, now=True)
        )


@asynccontextmanager
async def client_of(server: Any, kernel_id: str) -> AsyncIterator[Any]:
    client = server.kernel_manager.get_kernel(kernel_id).client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        await heard(server, kernel_id, client)
        yield client
    finally:
        client.stop_channels()


async def heard(server: Any, kernel_id: str, client: Any) -> None:
    """Once the server hears the kernel: what that said before the server had subscribed
    to it is lost.
    """
    while server.kernel_manager.get_kernel(kernel_id).execution_state != "idle":
        await client.execute_interactive("None", timeout=30)
        await asyncio.sleep(0.05)


async def note_of(broker: Broker, kernel_id: str, words: str) -> str:
    """The note on a kernel's lease, once it holds these words."""

    def noted() -> str:
        notes = [
            conditions_text(lease.conditions)
            for lease in broker.leases()
            if lease.holder.id == kernel_id
        ]
        return next((note for note in notes if words in note), "")

    result: str = await until(noted)
    return result


async def test_cell_is_interrupted_and_the_kernel_goes_on(
    server: Any, context: ServerContext, lists: Lists, start: StartKernel
) -> None:
    kernel_id, pid = await start()
    async with client_of(server, kernel_id) as client:
        sleeping = asyncio.ensure_future(
            client.execute_interactive(
                "treasure = 42; import time; time.sleep(600)", timeout=60
            )
        )
        await until(
            lambda: (
                server.kernel_manager.get_kernel(kernel_id).execution_state == "busy"
            )
        )
        lists.held = {pid: 60 * GIB}
        content = (await sleeping)["content"]
        assert (content["status"], content["ename"]) == ("error", "KeyboardInterrupt")
        note = await note_of(context.broker, kernel_id, "its cell was interrupted")
        assert f"{pid} of {kernel_id}.ipynb holds 60.0 GiB of 40.0 GiB" in note
        again = await client.execute_interactive(
            "treasure / 0 if treasure != 42 else None", timeout=30
        )
        assert again["content"]["status"] == "ok"


async def test_where_no_cell_runs_it_is_said_and_the_next_cell_is_interrupted(
    server: Any, context: ServerContext, lists: Lists, start: StartKernel
) -> None:
    kernel_id, pid = await start()
    async with client_of(server, kernel_id) as client:
        lists.held = {pid: 60 * GIB}
        await note_of(context.broker, kernel_id, "free some, or ask for a larger slice")
        content = (
            await client.execute_interactive("import time; time.sleep(600)", timeout=60)
        )["content"]
        assert (content["status"], content["ename"]) == ("error", "KeyboardInterrupt")


async def test_child_that_holds_too_much_is_ended_and_the_kernel_is_not(
    server: Any,
    context: ServerContext,
    lists: Lists,
    start: StartKernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context.broker.memory, "_action", MemoryAction.TERMINATE)
    kernel_id, pid = await start()
    async with client_of(server, kernel_id) as client:
        child = int(await printed(client, "\n".join(CHILD)))
        lists.held = {pid: 30 * GIB, child: 20 * GIB}
        await note_of(context.broker, kernel_id, f"{child} was ended")
        assert "-15" in await printed(client, "print(child.wait())")
    assert server.kernel_manager.get_kernel(kernel_id).provisioner.pid == pid


async def test_kernel_itself_is_started_again_only_if_it_alone_holds_too_much(
    server: Any,
    context: ServerContext,
    lists: Lists,
    start: StartKernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context.broker.memory, "_action", MemoryAction.TERMINATE)
    kernel_id, pid = await start()
    async with client_of(server, kernel_id):
        pass
    (lease,) = context.broker.leases()
    lists.held = {pid: 60 * GIB}
    await until(
        lambda: (
            server.kernel_manager.get_kernel(kernel_id).provisioner.pid
            not in (pid, None)
        )
    )
    await note_of(
        context.broker, kernel_id, "so its kernel was ended and started again"
    )
    assert [held.id for held in context.broker.leases()] == [lease.id]
    assert not is_alive(pid, None)


async def test_kernels_of_other_servers_are_theirs(
    context: ServerContext, lists: Lists
) -> None:
    broker = context.broker
    theirs = holder("kernel-of-another-server", host=broker.host, pid=os.getpid())
    lease_id = broker.submit("1/2", theirs).lease_id
    lists.held = {os.getpid(): 60 * GIB}
    await until(lambda: conditions_text(broker.lease(lease_id).conditions))
    assert conditions_text(broker.lease(lease_id).conditions).endswith(
        "free some, or ask for a larger slice"
    )


async def printed(client: Any, code: str) -> str:
    messages: list[str] = []
    reply = await client.execute_interactive(
        code,
        output_hook=lambda message: messages.append(message["content"].get("text", "")),
        timeout=30,
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(messages)


# -- a server of its own, on a fake driver ---------------------------------------------

GPU = f"gpu uuid=GPU-a name=NVIDIA_H100 memory={80 * GIB} cc=9.0 cores=16896\n"


def begin(server: LiveServer, name: str) -> tuple[BlockingKernelClient, int]:
    """A kernel on a quarter of the GPU in which a cell sleeps, and its process."""
    kernel = post(f"{server.url}api/kernels", {"name": "python3"})
    wait_for_kernel(server, kernel["id"])
    held = post(
        f"{server.url}aistack/api/v1/leases",
        {"spec": "gpu:1/4", "kernel_id": kernel["id"]},
    )
    client = BlockingKernelClient(
        connection_file=str(server.folder / "runtime" / f"kernel-{kernel['id']}.json")
    )
    client.load_connection_file()
    client.start_channels(hb=False)
    client.execute(f"import time; print({name!r}, flush=True); time.sleep(600)")
    while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass
    return client, held["lease"]["holder"]["pid"]


def notes_of(server: LiveServer) -> dict[int, str]:
    """The notes on all leases, by the process that holds them."""
    return {
        lease["holder"]["pid"]: lease_remarks(lease)
        for lease in server.get("aistack/api/v1/leases")["leases"]
    }


def test_cell_that_takes_a_neighbours_memory_is_interrupted_and_the_neighbour_is_not(
    fake_nvml: FakeNVML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fake_nvml.environment(GPU).items():
        monkeypatch.setenv(name, value)
    options = ("--AIStack.providers=gpu", "--AIStack.cycle_seconds=0.1")
    with live_server(tmp_path / "server", *options) as server:
        (greedy, taker), (modest, neighbour) = (
            begin(server, "greedy"),
            begin(server, "modest"),
        )
        within = f"process gpu=0 pid={neighbour} memory={15 * GIB} sm=50\n"
        fake_nvml.change(
            GPU + f"process gpu=0 pid={taker} memory={35 * GIB} sm=50\n" + within
        )
        content = greedy.get_shell_msg(timeout=60)["content"]
        assert (content["status"], content["ename"]) == ("error", "KeyboardInterrupt")
        notes = notes_of(server)
        while "its cell was interrupted" not in notes[taker]:
            notes = notes_of(server)
        assert f"{taker} of " in notes[taker]
        assert "holds 35.0 GiB of 20.0 GiB" in notes[taker]
        assert notes[neighbour] == ""
        assert not modest.shell_channel.msg_ready(), "its cell still sleeps"
        fake_nvml.change(
            GPU
        )  # else their end would wait for the work that the driver shows
        for client in (greedy, modest):
            client.stop_channels()
