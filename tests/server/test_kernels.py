"""Kernels that are gone, or seem to be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.server import kernels as kernels_module
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import holder
from tests.fakes.waiting import until


async def start_kernel(jp_fetch: Any) -> str:
    response = await jp_fetch(
        "api", "kernels", method="POST", body='{"name": "python3"}'
    )
    return str(json.loads(response.body)["id"])


async def test_kernel_that_is_gone_for_a_while_loses_its_lease_and_its_place(
    server: Any,
    jp_fetch: Any,
    context: ServerContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the server gives up on a kernel that keeps dying: nobody is told, and
    nobody else releases.
    """
    kernel_id = await start_kernel(jp_fetch)
    await until(lambda: kernel_id in _kernels(server)._known)
    ours = holder(kernel_id, user=current_user(), host=context.broker.host)
    lease_id = context.broker.submit("1", ours).lease_id
    waiting = context.broker.submit("1", ours)
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)
    await until(lambda: not context.broker.lease(lease_id).is_live)
    assert await until(
        lambda: context.broker.request(waiting.id).state.value == "cancelled"
    )


async def test_a_lease_goes_by_its_notebooks_name_of_now(
    server: Any, jp_fetch: Any, context: ServerContext
) -> None:
    asked = {"path": "Untitled.ipynb", "type": "notebook", "name": "Untitled.ipynb"}
    body = json.dumps({**asked, "kernel": {"name": "python3"}})
    response = await jp_fetch("api", "sessions", method="POST", body=body)
    session = json.loads(response.body)
    assert await _kernels(server).renames() == {}
    broker = context.broker
    place = {"host": broker.host, "pid": os.getpid(), "user": current_user()}
    ours = holder(session["kernel"]["id"], **place)
    named = [
        broker.submit("1/8", replace(ours, label=label)).lease_id
        for label in ("Untitled.ipynb", "my own name")
    ]
    worker = replace(ours, id="worker-1", parent=ours.id, label="Untitled.ipynb")
    named.append(broker.submit("1/8", replace(worker, kind=HolderKind.WORKER)).lease_id)
    strange = replace(ours, user="ben", label="Untitled.ipynb")
    named.append(broker.submit("1/8", strange).lease_id)
    waiting = broker.submit(
        "1", replace(ours, id="worker-2", parent=ours.id, label="Untitled.ipynb")
    )
    renamed = json.dumps({"path": "work/final.ipynb"})
    await jp_fetch("api", "sessions", session["id"], method="PATCH", body=renamed)

    def labels() -> list[str]:
        return [broker.lease(lease_id).holder.label for lease_id in named]

    # One after the other, the worker's lease last.
    await until(lambda: labels()[2] == "work/final.ipynb")
    assert labels() == [
        "work/final.ipynb",
        "my own name",
        "work/final.ipynb",
        "Untitled.ipynb",
    ]
    queued = broker.request(waiting.id)
    assert (queued.state.value, queued.holder.label) == ("queued", "work/final.ipynb")


async def test_kernels_of_other_servers_are_left_alone(
    server: Any, context: ServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    theirs = holder(
        "kernel-of-another-server", host=context.broker.host, pid=os.getpid()
    )
    lease_id = context.broker.submit("1/4", theirs).lease_id
    gone = await _kernels(server).terminated()
    await context.run(context.kernel_broker.report, KernelReport(gone=gone))
    assert context.broker.lease(lease_id).is_live


async def test_crashed_kernel_is_not_gone_before_its_grace_is_over(
    server: Any, jp_fetch: Any
) -> None:
    kernel_id = await start_kernel(jp_fetch)
    kernels = KernelRegistry(server)
    assert await kernels.terminated() == frozenset()
    pid = kernels.pids()[kernel_id]
    manager = server.kernel_manager.get_kernel(kernel_id)
    manager.stop_restarter()
    os.kill(pid, signal.SIGKILL)
    while await manager.provisioner.poll() is None:
        await asyncio.sleep(0.01)
    assert await kernels.terminated() == frozenset()
    kernels._missing_since[kernel_id] -= kernels_module.GRACE_SECONDS
    assert await kernels.terminated() == {kernel_id}
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


async def test_kernel_being_started_is_not_gone(
    server: Any, jp_fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    kernel_id = await start_kernel(jp_fetch)
    kernels = KernelRegistry(server)
    provisioner = server.kernel_manager.get_kernel(kernel_id).provisioner
    monkeypatch.setattr(provisioner, "pid", None)
    monkeypatch.setattr(provisioner, "process", None)
    assert await provisioner.poll() == 0, (
        "a kernel without a process looks ended to whoever only polls"
    )
    assert await kernels.terminated() == frozenset()
    monkeypatch.undo()
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


def _kernels(server: Any) -> KernelRegistry:
    (extension,) = server.extension_manager.extension_apps["jupyter_aistack"]
    kernels: KernelRegistry = extension._kernels
    return kernels
