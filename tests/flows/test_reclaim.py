"""Slices that are taken back from real kernels on a real server: idle ones, and
preemptible ones others need.

Idle times pass on the broker's clock alone: the tests turn it, and the server's crank,
themselves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from traitlets.config import Config

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease, NoticeKind, Outcome
from jupyter_aistack.core.scheduling.idle import idle_stage
from jupyter_aistack.server.maintenance.loop import MaintenanceLoop
from tests.fakes.kernel_server import (
    WITH_MAGICS,
    WriteKernel,
    active,
    client_of,
    evaluate,
    lease_of,
)

MINUTE = 60.0
Turn = Callable[[], Awaitable[None]]


@pytest.fixture
def jp_server_config() -> Config:
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"jupyter_aistack": True}},
            "AIStack": {
                "providers": "simulated:1xH100-80GB",
                "cycle_seconds": 1e6,
                "lease_ttl_seconds": 1e6,
                "notice_seconds": 1.0,
                "min_runtime": 0,
                "queues": {"urgent": {"priority": 1}},
            },
        }
    )


class Wheel:
    """A clock that can be turned forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def turn(self, minutes: float) -> None:
        self.ahead += minutes * MINUTE


@pytest.fixture
def clock(broker: Broker) -> Wheel:
    wheel = Wheel()
    broker.host_state.clock = wheel
    return wheel


@pytest.fixture
def turn(server: Any) -> Turn:
    """One turn of the server's maintenance."""
    (extension,) = server.extension_manager.extension_apps["jupyter_aistack"]
    parts = (
        extension.context,
        extension._kernels,
        extension._bus,
        extension._sampler,
    )
    upkeep = MaintenanceLoop(*parts, cycle_seconds=lambda: 1e6)

    async def keep() -> None:
        await upkeep.keep()
        await upkeep.publish()

    return keep


async def settled(kernels: Any, kernel_id: str) -> None:
    """Once the server knows that the kernel waits for its user.

    A kernel that is ready before the server has subscribed to it is not heard saying
    so; then it is asked to say more.
    """
    started_at = time.monotonic()
    while kernels.get_kernel(kernel_id).execution_state != "idle":
        waited = time.monotonic() - started_at
        assert waited < 30
        if waited > 3:
            await speak(kernels, kernel_id)
        await asyncio.sleep(0.01)


async def speak(kernels: Any, kernel_id: str) -> None:
    """Have a kernel run a cell that does nothing."""
    client = kernels.get_kernel(kernel_id).client()
    client.start_channels()
    await client.wait_for_ready(timeout=30)
    await client.execute_interactive("None", timeout=30)
    client.stop_channels()


def shown(broker: Broker, lease_id: str) -> tuple[str, str]:
    """What a lease is called, and the kind of its notice."""
    lease = broker.lease(lease_id)
    kind = lease.notice.kind.value if lease.notice else ""
    return idle_stage(
        lease, broker.host_state.policy.queue(lease.queue), broker.clock()
    ), kind


@pytest.fixture
def kernel_name(kernelspec: WriteKernel) -> str:
    return kernelspec("quarter", slice="1/4", argv=WITH_MAGICS)


async def start(
    kernels: Any, broker: Broker, turn: Turn, name: str
) -> tuple[str, Lease]:
    """A kernel with a slice that is there and waits for its user."""
    kernel_id = await kernels.start_kernel(kernel_name=name)
    lease = await active(broker, kernel_id)
    async with client_of(kernels.get_kernel(kernel_id)):
        pass
    await settled(kernels, kernel_id)
    await turn()
    await turn()
    assert broker.lease(lease.id).active_at is not None
    return kernel_id, lease


async def test_open_but_unused_notebook_gets_a_badge_then_a_notice_and_is_kept_by_extend(
    kernels: Any,
    broker: Broker,
    clock: Wheel,
    turn: Turn,
    kernel_name: str,
    jp_fetch: Any,
    jp_ws_fetch: Any,
) -> None:
    kernel_id, lease = await start(kernels, broker, turn, kernel_name)
    page = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    for kind in ("kernel_info_request", "comm_info_request"):
        header = {
            "msg_id": kind,
            "msg_type": kind,
            "session": "page",
            "username": "",
            "version": "5.3",
            "date": "",
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": {},
            "channel": "shell",
        }
        await page.write_message(json.dumps({**message, "buffers": []}))
    while (
        json.loads(await page.read_message())["parent_header"].get("msg_type")
        != "comm_info_request"
    ):
        pass
    await turn()
    assert shown(broker, lease.id) == ("", "")
    clock.turn(31)
    await turn()
    assert shown(broker, lease.id) == ("idle", "")
    clock.turn(25)
    await turn()
    assert shown(broker, lease.id) == ("noticed", "idle")
    body = json.dumps({"seconds": 3600})
    response = await jp_fetch(
        "aistack", "api", "v1", "leases", lease.id, "extend", method="POST", body=body
    )
    assert json.loads(response.body)["notice"] is None
    assert shown(broker, lease.id) == ("", "")
    await turn()
    assert broker.lease(lease.id).is_live
    page.close()


async def test_slice_that_nobody_uses_is_taken_back_and_its_kernel_says_so_and_goes_on(
    kernels: Any, broker: Broker, clock: Wheel, turn: Turn, kernel_name: str
) -> None:
    kernel_id, lease = await start(kernels, broker, turn, kernel_name)
    for minutes in (56, 4, 2):
        assert broker.lease(lease.id).is_live
        clock.turn(minutes)
        await turn()
    ended = broker.lease(lease.id)
    assert ended.outcome is Outcome.RECLAIMED
    assert lease_of(broker, kernel_id) is None
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        text = await output(
            client, "import os; print('lease:', os.environ.get('AISTACK_LEASE', ''))"
        )
        assert f"the lease {lease.id} has ended: reclaimed: idle" in text
        assert "%gpu request 1/4 asks again" in text
        assert text.rstrip().endswith("lease:")
        assert "This kernel holds 1/4" in await output(
            client, "print(get_ipython().run_line_magic('gpu', 'request 1/4'))"
        )


async def test_notice_is_withdrawn_when_a_cell_runs(
    kernels: Any, broker: Broker, clock: Wheel, turn: Turn, kernel_name: str
) -> None:
    kernel_id, lease = await start(kernels, broker, turn, kernel_name)
    clock.turn(56)
    await turn()
    assert shown(broker, lease.id) == ("noticed", "idle")
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        text = await output(client, "1 + 1")
        assert "This kernel's slice 1/4 will be reclaimed in" in text, (
            "told before the cell at the latest"
        )
    await settled(kernels, kernel_id)
    await turn()
    assert shown(broker, lease.id) == ("", "")


async def test_silent_long_cell_is_never_idle(
    kernels: Any,
    broker: Broker,
    clock: Wheel,
    turn: Turn,
    kernel_name: str,
    tmp_path: Path,
) -> None:
    kernel_id, lease = await start(kernels, broker, turn, kernel_name)
    begun, over = tmp_path / "begun", tmp_path / "over"
    cell = f"import os, time; open({str(begun)!r}, 'w')\nwhile not os.path.exists({str(over)!r}): time.sleep(0.01)"
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        client.execute(cell)
        while (
            not begun.exists()
            or kernels.get_kernel(kernel_id).execution_state != "busy"
        ):
            await asyncio.sleep(0.01)
        for _ in range(12):
            clock.turn(10)
            await turn()
            assert shown(broker, lease.id) == ("", "")
        over.touch()
    assert broker.lease(lease.id).is_live


async def test_preempted_kernel_is_told_saves_and_keeps_running(
    kernels: Any,
    broker: Broker,
    turn: Turn,
    kernelspec: WriteKernel,
    jp_fetch: Any,
    tmp_path: Path,
) -> None:
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("plain", argv=WITH_MAGICS)
    )
    saved = tmp_path / "saved"
    prepare = f"""
import jupyter_aistack, json, os, threading, time
jupyter_aistack.client.notices.ASK_SECONDS = 0.05

@jupyter_aistack.on_notice
def save(notice):
    with open({str(saved) + ".new"!r}, "w") as file:
        json.dump({{**notice, "thread": threading.current_thread().name}}, file)
    os.rename({str(saved) + ".new"!r}, {str(saved)!r})

treasure = 42
print(get_ipython().run_line_magic("gpu", "request 1 --preemptible"))
"""
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        assert "This kernel holds 1 (simulated" in await output(client, prepare)
        lease = lease_of(broker, kernel_id)
        assert lease is not None
        assert lease.preemptible
        body = json.dumps({"spec": "1", "queue": "urgent"})
        response = await jp_fetch(
            "aistack", "api", "v1", "leases", method="POST", body=body
        )
        assert response.code == 202
        await turn()
        noticed = broker.lease(lease.id)
        assert noticed.notice is not None
        assert noticed.notice.kind is NoticeKind.PREEMPT
        line = "This kernel's slice 1 will be preempted in 1 s: a higher-priority request needs the capacity."
        assert line.partition(" in ")[0] in await stream_text(client)
        while not saved.exists():
            await asyncio.sleep(0.01)
        notice = json.loads(saved.read_text())
        assert (notice["kind"], notice["lease_id"], notice["thread"]) == (
            "preempt",
            lease.id,
            "aistack-notices",
        )
        path = ("aistack", "api", "v1", "leases", lease.id, "extend")
        with pytest.raises(HTTPClientError) as refused:
            await jp_fetch(*path, method="POST", body=json.dumps({"seconds": 60}))
        assert refused.value.code == 409
        deadline = time.monotonic() + 20
        while broker.lease(lease.id).is_live:
            assert time.monotonic() < deadline
            await turn()
            await asyncio.sleep(0.05)
        assert broker.lease(lease.id).outcome is Outcome.PREEMPTED
        assert [held.queue for held in broker.leases()] == ["urgent"]
        text = await output(client, "print(treasure)")
        assert "preempted: a higher-priority request needed the capacity" in text
        assert (
            "this kernel runs without a device now; %gpu request 1 asks again" in text
        )
        assert text.rstrip().endswith("42")
        assert await evaluate(client, "os.environ.get('AISTACK_LEASE')") is None


async def output(client: Any, code: str) -> str:
    """What running `code` prints."""
    messages: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        messages.append(message["content"].get("text", ""))

    reply = await client.execute_interactive(code, output_hook=hear, timeout=60)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(messages)


async def stream_text(client: Any) -> str:
    """The next text that the kernel prints by itself."""
    while True:
        message = await client.get_iopub_msg(timeout=20)
        if message["msg_type"] == "stream":
            return str(message["content"]["text"])
