"""Notebooks that share a GPU by turns, through a real server: tensors of the CPU stand
in for those of the GPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from traitlets.config import Config

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.system.processes import is_alive
from tests.fakes.kernel_server import WriteKernel, client_of, lease_of, pid_of
from tests.fakes.waiting import until

NOTEBOOK = [
    "python",
    "-m",
    "ipykernel_launcher",
    "-f",
    "{connection_file}",
    "--ext",
    "jupyter_aistack.magics",
]
REGISTER = """
import torch, jupyter_aistack as aistack
torch.manual_seed(3)
model = torch.nn.Linear(64, 64)
before = {name: part.clone() for name, part in model.state_dict().items()}
address = model.weight.data_ptr()
offload = aistack.offloadable(model, device="cpu")
"""
COMPARE = """
same = all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
print("same", same, offload.is_suspended)
"""


@pytest.fixture
def jp_server_config() -> Config:
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"jupyter_aistack": True}},
            "AIStack": {
                "providers": "simulated:1xL4-4GB",
                "cycle_seconds": 0.2,
                "suspend": {"warm": 0.1, "retry": 1.0},
                "queues": {"default": {"suspend": True}},
            },
        }
    )


class Notebook:
    """One running notebook: runs cells, and keeps what they showed."""

    def __init__(self, kernel_id: str, client: Any) -> None:
        self.kernel_id, self.client = kernel_id, client
        self.shown: list[str] = []

    async def run(self, code: str, timeout: float = 60.0) -> str:
        """Run a cell; ``ok`` or ``error``."""
        reply = await self.client.execute_interactive(
            code, output_hook=self._hear, timeout=timeout
        )
        return str(reply["content"]["status"])

    def _hear(self, message: dict[str, Any]) -> None:
        content = message["content"]
        text = content.get("text") or json.dumps(
            content.get("data") or content.get("traceback") or ""
        )
        self.shown.append(text)

    def take(self) -> str:
        """What was shown since the last call."""
        shown, self.shown = "".join(self.shown), []
        return shown


@asynccontextmanager
async def notebook(kernels: Any, kernel_id: str) -> AsyncIterator[Notebook]:
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        yield Notebook(kernel_id, client)


def home(broker: Broker, kernel_id: str) -> DeviceState:
    lease = lease_of(broker, kernel_id)
    assert lease is not None
    assert lease.residence is not None
    return lease.residence


async def lease_once_known(broker: Broker, kernel_id: str) -> Lease:
    """The kernel's lease once its server has found that it may be moved."""

    def known() -> Lease | None:
        lease = lease_of(broker, kernel_id)
        return (
            lease if lease and lease.residence and not lease.residence.pinned else None
        )

    result: Lease = await until(known)
    return result


async def parked(broker: Broker, kernel_id: str) -> DeviceState:
    result: DeviceState = await until(
        lambda: (
            home(broker, kernel_id).phase is StatePhase.PARKED
            and home(broker, kernel_id)
        )
    )
    return result


async def test_an_idle_notebook_makes_room_and_finds_its_tensors_again(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    name = kernelspec("whole", slice="1", argv=NOTEBOOK, wait_seconds=30)
    first = await kernels.start_kernel(kernel_name=name)
    async with notebook(kernels, first) as ann:
        assert await ann.run(REGISTER) == "ok"
        await lease_once_known(broker, first)
        second = await kernels.start_kernel(kernel_name=name)
        assert lease_of(broker, second) is not None, "it waited for the room and got it"
        gone = await parked(broker, first)
        assert (gone.tier, gone.state_bytes) == (
            SuspendMethod.OFFLOAD,
            64 * 64 * 4 + 64 * 4,
        )
        assert " in " in gone.note

        ann.take()
        assert await ann.run("1 + 1") == "ok"
        assert "Its GPU memory" not in ann.take()
        assert home(broker, first).phase is StatePhase.PARKED, (
            "a cell of plain Python needs no GPU"
        )
        assert await ann.run(COMPARE) == "ok"
        shown = ann.take()
        assert "same True False" in shown
        assert "Resuming" in shown
        assert "came back to the GPU" in shown
        assert home(broker, first).phase is StatePhase.RESIDENT
        assert (await parked(broker, second)).tier is SuspendMethod.SIMULATED


async def test_a_user_suspends_pins_and_hears_once_what_it_means(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("half", slice="1/2", argv=NOTEBOOK)
    )
    async with notebook(kernels, kernel_id) as ann:
        assert await ann.run("x = 1") == "ok"
        await lease_once_known(broker, kernel_id)
        assert await ann.run("%gpu pin") == "ok"
        assert "PINNED" in ann.take()
        assert await ann.run("%gpu suspend") == "error"
        assert "pinned by the user" in ann.take()
        assert await ann.run("%gpu unpin") == "ok"
        assert await ann.run("%gpu suspend") == "ok"
        await parked(broker, kernel_id)
        ann.take()
        assert await ann.run("%gpu") == "ok"
        shown = ann.take()
        assert "Nothing is lost" in shown
        assert "SUSPENDED" in shown
        assert await ann.run("2") == "ok"
        assert "Nothing is lost" not in ann.take(), "once is enough"
        assert await ann.run("%gpu resume") == "ok"
        await until(lambda: home(broker, kernel_id).phase is StatePhase.RESIDENT)


async def test_a_wait_is_interrupted_and_the_cell_does_not_run(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("whole", slice="1", argv=NOTEBOOK)
    )
    async with notebook(kernels, kernel_id) as ann:
        assert (
            await ann.run(
                "ran = []\nclass Model: pass\nModel.__module__ = 'torch.nn'\nmodel = Model()"
            )
            == "ok"
        )
        lease = await lease_once_known(broker, kernel_id)
        broker.request_action(lease.id, RequestedAction.SUSPEND)
        await parked(broker, kernel_id)
        other = Holder(
            kind=HolderKind.KERNEL,
            id="other",
            user="bob",
            host=broker.host,
            pid=os.getpid(),
        )
        assert broker.submit("1", other).lease_id, (
            "of another server, which has not said that it can be moved"
        )
        cell = asyncio.ensure_future(ann.run("ran.append(model)"))
        await until(lambda: home(broker, kernel_id).wanted_at is not None)
        await kernels.interrupt_kernel(kernel_id)
        assert await cell == "error"
        assert "stopped waiting for the GPU; the cell did not run" in ann.take()
        assert home(broker, kernel_id).wanted_at is None
        assert await ann.run("print(len(ran))") == "ok"
        assert "0" in ann.take()


async def test_a_kernel_restarted_while_its_state_is_away_begins_with_nothing_to_bring_back(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("whole", slice="1", argv=NOTEBOOK)
    )
    async with notebook(kernels, kernel_id) as ann:
        assert await ann.run(REGISTER) == "ok"
        lease = await lease_once_known(broker, kernel_id)
        broker.request_action(lease.id, RequestedAction.SUSPEND)
        assert (await parked(broker, kernel_id)).state_bytes
    await kernels.restart_kernel(kernel_id)
    after = lease_of(broker, kernel_id)
    assert after is not None
    assert after.id == lease.id
    assert home(broker, kernel_id).state_bytes == 0
    async with notebook(kernels, kernel_id) as ann:
        assert await ann.run("import torch\nprint(torch.ones(2).sum().item())") == "ok"
        assert "2.0" in ann.take()
        await until(lambda: home(broker, kernel_id).phase is StatePhase.RESIDENT)


async def test_any_kernel_is_seen_to_wait_for_its_gpu_from_outside_and_one_that_computes_is_left_alone(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", slice="1", argv=NOTEBOOK[:-2])
    )
    async with notebook(kernels, kernel_id) as ann:
        assert await ann.run("import time") == "ok"
        lease = await lease_once_known(broker, kernel_id)
        broker.request_action(lease.id, RequestedAction.SUSPEND)
        assert (await parked(broker, kernel_id)).tier is SuspendMethod.SIMULATED
        assert (
            await ann.run(
                "end = time.process_time() + 1\nwhile time.process_time() < end: pass"
            )
            == "ok"
        )
        assert home(broker, kernel_id).phase is StatePhase.PARKED
        cell = asyncio.ensure_future(ann.run("time.sleep(3)"))
        await until(
            lambda: (
                home(broker, kernel_id).phase is StatePhase.RESIDENT
                and home(broker, kernel_id).is_busy
            )
        )
        assert not cell.done()
        assert await cell == "ok"
        await until(lambda: not home(broker, kernel_id).is_busy)


def ignores_interrupts(pid: int) -> bool:
    """Whether a process has said so to the system, see ``SigIgn`` in proc(5)."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return bool(int(status["SigIgn"], 16) & 1 << (signal.SIGINT - 1))


async def test_a_kernels_state_is_taken_away_before_its_process_is_killed(
    kernels: Any, server: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    stubborn = [
        "python",
        "-S",
        "-c",
        "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(600)",
    ]
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("one", slice="1/2", argv=stubborn)
    )
    await until(lambda: ignores_interrupts(pid_of(kernels, kernel_id)))
    asked: list[tuple[str, bool]] = []

    async def before_kill(kernel_id: str, pid: int) -> None:
        asked.append((kernel_id, is_alive(pid, None)))

    server.web_app.settings["aistack"].before_kill = before_kill
    await kernels.interrupt_kernel(kernel_id)
    assert asked == [], "an interrupt ends nothing"
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert asked == [(kernel_id, True)]


async def test_a_restart_of_a_restored_kernel_is_made_safe_by_the_mover(
    kernels: Any,
    server: Any,
    broker: Broker,
    kernelspec: WriteKernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = server.web_app.settings["aistack"]
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="1/2"))
    safe: list[str] = []
    monkeypatch.setattr(
        "jupyter_aistack.server.suspend.worker.SuspendWorker.suspend_before_kill",
        lambda self, kernel, pid: safe.append(kernel),
    )
    await context.before_kill(kernel_id, pid_of(kernels, kernel_id))
    assert safe == [kernel_id]


async def test_rest_suspends_resumes_and_pins(
    kernels: Any, broker: Broker, kernelspec: WriteKernel, jp_fetch: Any
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="1/2"))
    lease = await lease_once_known(broker, kernel_id)

    async def post(verb: str) -> dict[str, Any]:
        response = await jp_fetch(
            "aistack",
            "api",
            "v1",
            "leases",
            lease.id,
            verb,
            method="POST",
            allow_nonstandard_methods=True,
        )
        text: dict[str, Any] = json.loads(response.body)
        return text

    host = json.loads((await jp_fetch("aistack", "api", "v1", "host")).body)
    assert host["suspend"]["tier"] == "offload"
    assert "simulated" in host["suspend"]["why"]
    assert (await post("pin"))["residence"]["standing"] == "pinned"
    with pytest.raises(HTTPClientError) as refused:
        await post("suspend")
    assert refused.value.code == 409
    await post("unpin")
    await post("suspend")
    await parked(broker, kernel_id)
    await post("resume")
    await until(lambda: home(broker, kernel_id).phase is StatePhase.RESIDENT)
