"""What a kernel starts is a process of its own: its lease is not the kernel's, and ends
with that process.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import HolderKind
from tests.fakes.kernel_server import (
    ALL,
    IPYKERNEL,
    WITH_MAGICS,
    WriteKernel,
    client_of,
    evaluate,
    lease_of,
)
from tests.fakes.waiting import until

needs_two_cores = pytest.mark.skipif(ALL < 2, reason="two leases need two cores")
REQUEST = "import jupyter_aistack as a; l = a.request('cpu:1'); print(l.id, flush=True); __import__('time').sleep(600)"
MINE = "__import__('jupyter_aistack.client.client').client.client.connect().mine()"
START = f"""
import subprocess, sys
def start(*command):
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return child, child.stdout.readline().split()
def script():
    return start(sys.executable, "-c", {REQUEST!r})
def shell():
    return start("sh", "-c", sys.executable + ' -c "' + {REQUEST!r} + '"; true')
def command_line():
    program = "import os; print(os.environ['AISTACK_LEASE'], os.getppid(), flush=True); __import__('time').sleep(600)"
    return start(
        sys.executable, "-m", "jupyter_aistack.cli", "request", "cpu:1", "--",
        sys.executable, "-c", program,
    )
"""


async def start_kernel(kernels: Any, kernelspec: WriteKernel, **options: Any) -> str:
    name = kernelspec("plain", **{"argv": IPYKERNEL, **options})
    return str(await kernels.start_kernel(kernel_name=name))


def children_of(broker: Broker, kernel_id: str) -> list[Lease]:
    """The leases of processes that a kernel started."""
    return [lease for lease in broker.leases() if lease.holder.parent == kernel_id]


async def has_ended(broker: Broker, lease_id: str) -> None:
    def ended() -> bool:
        broker.maintain()
        return not broker.lease(lease_id).is_live

    await until(ended)


@needs_two_cores
@pytest.mark.parametrize("launcher", ["script", "shell", "command_line"])
async def test_a_lease_of_a_child_is_not_the_kernels_and_ends_with_the_child(
    kernels: Any, broker: Broker, kernelspec: WriteKernel, launcher: str
) -> None:
    kernel_id = await start_kernel(kernels, kernelspec)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        await client.execute_interactive(START, timeout=30)
        await client.execute_interactive(f"child, words = {launcher}()", timeout=60)
        lease_id = (await evaluate(client, "words"))[0]
        holder = broker.lease(lease_id).holder
        assert holder.kind is HolderKind.PROCESS
        assert holder.parent == kernel_id
        child = int(holder.id.removeprefix("pid-"))
        assert child != os.getpid()
        assert (holder.pid == child) is (launcher != "command_line")
        mine = await evaluate(client, MINE)
        assert [lease["id"] for lease in mine["leases"]] == [lease_id]
        assert (mine["prepared"], mine["owner"]) == ({}, kernel_id)

        own = await evaluate(
            client, "(lease := __import__('jupyter_aistack').request('cpu:1')).id"
        )
        held = lease_of(broker, kernel_id)
        assert held is not None
        assert held.id == own
        await client.execute_interactive("lease.release()", timeout=30)
        assert broker.lease(lease_id).is_live

        os.kill(child, signal.SIGKILL)
        await has_ended(broker, lease_id)


@needs_two_cores
async def test_the_magic_releases_what_is_the_kernels_and_nothing_else(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await start_kernel(kernels, kernelspec, argv=WITH_MAGICS)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        await client.execute_interactive(START, timeout=30)
        await client.execute_interactive("child, words = script()", timeout=60)
        await client.execute_interactive("%gpu release", timeout=30)
        (child,) = children_of(broker, kernel_id)
        assert child.is_live
        reply = await client.execute_interactive("%gpu request cpu:1", timeout=60)
        assert reply["content"]["status"] == "ok"
        own = lease_of(broker, kernel_id)
        assert own is not None
        await client.execute_interactive("%gpu release", timeout=30)
        assert not broker.lease(own.id).is_live
        assert broker.lease(child.id).is_live
        await client.execute_interactive("child.kill()", timeout=30)
        await has_ended(broker, child.id)


async def test_scripts_in_a_row_leave_no_lease(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await start_kernel(kernels, kernelspec)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        await client.execute_interactive(START, timeout=30)
        for _ in range(3):
            await client.execute_interactive("child, words = script()", timeout=60)
            await client.execute_interactive("child.kill(); child.wait()", timeout=30)
            lease_id = (await evaluate(client, "words"))[0]
            await has_ended(broker, lease_id)
    assert children_of(broker, kernel_id) == []


@needs_two_cores
async def test_a_child_that_outlives_its_kernel_keeps_its_lease(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await start_kernel(kernels, kernelspec)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        detached = START.replace("text=True", "text=True, start_new_session=True")
        await client.execute_interactive(detached, timeout=30)
        await client.execute_interactive("child, words = script()", timeout=60)
        lease_id = (await evaluate(client, "words"))[0]
        pid = broker.lease(lease_id).holder.pid or 0
    await kernels.shutdown_kernel(kernel_id, now=True)
    broker.maintain()
    assert broker.lease(lease_id).is_live
    os.kill(pid, signal.SIGKILL)
    await has_ended(broker, lease_id)


@pytest.mark.parametrize(
    "wrapped",
    [
        'exec 9>&1; {python} -m ipykernel_launcher -f "$0"; true',
        'sh -c \'exec 9>&1; {python} -m ipykernel_launcher -f "$0"; true\' "$0"; true',
    ],
)
async def test_a_kernel_that_another_program_starts_is_the_kernel_all_the_same(
    kernels: Any, broker: Broker, kernelspec: WriteKernel, wrapped: str
) -> None:
    script = wrapped.replace("{python}", "python")
    kernel_id = await start_kernel(
        kernels, kernelspec, argv=["sh", "-c", script, "{connection_file}"]
    )
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        lease_id = await evaluate(
            client, "(lease := __import__('jupyter_aistack').request('cpu:1')).id"
        )
        launched = kernels.get_kernel(kernel_id).provisioner.pid
        assert await evaluate(client, "os.getpid()") != launched
        holder = broker.lease(lease_id).holder
        assert (holder.kind, holder.id) == (HolderKind.KERNEL, kernel_id)
        mine = await evaluate(client, MINE)
        assert list(mine["prepared"]) == [lease_id]
        await client.execute_interactive(START, timeout=30)
        child = json.dumps(
            "import jupyter_aistack.client.client as c; print(c.connect().mine()['owner'])"
        )
        owner = await evaluate(client, f"start(sys.executable, '-c', {child})[1][0]")
        assert owner.startswith("pid-")
