"""A kernel without a slice, side by side with one that Jupyter's own provisioner
launched: nobody can tell.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

from jupyter_aistack.kernel.environment import SECRETS
from jupyter_aistack.kernel.provisioner import SliceProvisioner
from tests.fakes.kernel_server import client_of, environment_of, evaluate

CELLS = [
    "1 + 1",
    "print('out'); import sys; print('err', file=sys.stderr)",
    "from IPython.display import display, HTML; h = display(HTML('<b>x</b>'), display_id=True); h.update(HTML('y'))",
    "1 / 0",
    "def f(",
    "%timeit -n1 -r1 -q -o 1\nNone",
    "!exit 3",
    "raise KeyboardInterrupt",
    "input('name? ')",
    "import os; [os.getcwd() != '', os.environ.get('AISTACK_LEASE')]",
]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Starts the same native kernelspec under either provisioner: ``await
    pair("aistack-provisioner")``.
    """
    for name in SECRETS:
        monkeypatch.setenv(name, "s3cret")
    started: list[AsyncKernelManager] = []

    async def start(provisioner: str) -> AsyncKernelManager:
        KernelProvisionerFactory.clear_instance()
        monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", provisioner)
        manager = AsyncKernelManager(
            kernel_name="python3", connection_file=str(tmp_path / f"{provisioner}.json")
        )
        await manager.start_kernel(cwd=str(tmp_path))
        started.append(manager)
        return manager

    start.all = started  # type: ignore[attr-defined]
    return start


async def both(pair: Any) -> tuple[AsyncKernelManager, AsyncKernelManager]:
    ours, plain = await pair("aistack-provisioner"), await pair("local-provisioner")
    assert isinstance(ours.provisioner, SliceProvisioner)
    assert not isinstance(plain.provisioner, SliceProvisioner)
    return ours, plain


async def shut_down(*managers: AsyncKernelManager) -> None:
    await asyncio.gather(*(manager.shutdown_kernel() for manager in managers))
    KernelProvisionerFactory.clear_instance()


def shape(message: dict[str, Any]) -> Any:
    """A message without what differs from run to run: ids, dates, paths and traceback
    colours.
    """
    content = dict(message["content"])
    for varying in ("traceback", "execution_count", "engine_info"):
        content.pop(varying, None)
    content["transient"] = sorted(content.get("transient", {}))
    if content.get("data", {}).get("text/plain", "").startswith("<TimeitResult"):
        content["data"] = {}
    return (
        message["msg_type"],
        content,
        sorted(message["header"]),
        sorted(message["metadata"]),
    )


async def conversation(manager: AsyncKernelManager) -> list[Any]:
    """Everything a client sees of the cells, an interrupt and a restart."""
    heard: list[Any] = []
    asked: list[
        Any
    ] = []  # another channel: when it comes between the messages of the first is left to chance
    async with client_of(manager) as client:
        info = (await client.kernel_info(reply=True))["content"]
        heard.append(
            {**info, "banner": info["banner"].partition("\nTip: ")[0]}
        )  # IPython's tip of the day

        def answer(message: dict[str, Any]) -> None:
            asked.append(shape(message))
            client.input("Ann")

        for cell in CELLS:
            reply = await client.execute_interactive(
                cell,
                output_hook=lambda m: heard.append(shape(m)),
                stdin_hook=answer,
                allow_stdin=True,
                timeout=30,
            )
            heard.append(shape(reply))
        heard.append(
            (await client.complete("import o", reply=True))["content"]["status"]
        )
        heard.extend(await interrupted(manager, client))
        await manager.restart_kernel()
        await client.wait_for_ready(timeout=30)
        heard.append(await evaluate(client, "'h' in globals()"))
    return [*heard, *asked]


async def interrupted(manager: AsyncKernelManager, client: Any) -> list[Any]:
    """What is seen of a cell that is interrupted while it sleeps."""
    heard: list[Any] = []
    sleeping = asyncio.Event()

    def hear(message: dict[str, Any]) -> None:
        heard.append(shape(message))
        if message["msg_type"] == "stream":
            sleeping.set()

    cell = "import time; print('asleep', flush=True); time.sleep(60)"
    task = asyncio.ensure_future(
        client.execute_interactive(cell, output_hook=hear, timeout=30)
    )
    await asyncio.wait_for(sleeping.wait(), 30)
    await manager.interrupt_kernel()
    return [*heard, shape(await task)]


async def test_a_client_hears_the_same_from_both(pair: Any) -> None:
    ours, plain = await both(pair)
    heard = await asyncio.gather(conversation(ours), conversation(plain))
    await shut_down(ours, plain)
    assert len(heard[1]) > 40
    assert heard[0] == heard[1]


async def test_command_and_provisioner_info_are_the_same(pair: Any) -> None:
    ours, plain = await both(pair)
    commands = [
        Path(f"/proc/{m.provisioner.pid}/cmdline").read_bytes().split(b"\0")
        for m in (ours, plain)
    ]
    infos = [await m.provisioner.get_provisioner_info() for m in (ours, plain)]
    await shut_down(ours, plain)
    assert [word for word in commands[0] if b".json" not in word] == [
        w for w in commands[1] if b".json" not in w
    ]
    assert infos[0].keys() == infos[1].keys()


async def test_environment_differs_by_our_variables_and_the_dropped_secrets_only(
    pair: Any,
) -> None:
    ours, plain = await both(pair)
    mine, theirs = (
        environment_of(ours.provisioner.pid),
        environment_of(plain.provisioner.pid),
    )
    await shut_down(ours, plain)
    assert theirs.keys() - mine.keys() == set(SECRETS)
    assert mine.keys() - theirs.keys() == {"AISTACK_KERNEL"}
    changed = {
        name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]
    }
    assert changed <= {"JUPYTER_DEFAULT_PROVISIONER_NAME", "JPY_PARENT_PID"}
