"""From starting a kernel to its first answer, through our provisioner and through
Jupyter's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL
from types import SimpleNamespace

from traitlets.config import Configurable

from jupyter_aistack.config import AIStack
from jupyter_aistack.server.context import ServerContext
from tests.benchmarks.harness import Report, interleaved, main, paired_ratio

SPECS = {"local": None, "plain": {}, "slice": {"slice": "cpu:1/2"}}


class Server(Configurable):
    """Stands where a Jupyter server stands above its kernel managers, with the
    extension's context in it.
    """

    def __init__(self, context: ServerContext) -> None:
        super().__init__()
        self.web_app = SimpleNamespace(settings={"aistack": context})


def write_kernelspecs(folder: Path) -> None:
    """One kernelspec per contender, alike but for who launches it."""
    for name, config in SPECS.items():
        stanza = {
            "kernel_provisioner": {
                "provisioner_name": "aistack-provisioner",
                "config": config,
            }
        }
        argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        metadata = {} if config is None else stanza
        spec = {
            "argv": argv,
            "display_name": name,
            "language": "python",
            "metadata": metadata,
        }
        (folder / "kernels" / name).mkdir(parents=True)
        (folder / "kernels" / name / "kernel.json").write_text(json.dumps(spec))


async def start_once(name: str, server: Server) -> float:
    """Milliseconds until the kernel has answered; ending it is not counted."""
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager(kernel_name=name, parent=server)
    begin = time.perf_counter()
    await manager.start_kernel(stdout=DEVNULL, stderr=DEVNULL)
    client = manager.client()
    client.start_channels()
    await client.kernel_info(reply=True, timeout=60)
    elapsed = (time.perf_counter() - begin) * 1000
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
    return elapsed


def measure(rounds: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JUPYTER_DATA_DIR"] = os.environ["JUPYTER_RUNTIME_DIR"] = folder
        os.environ["AISTACK_LEDGER"] = f"sqlite:///{folder}/ledger.sqlite"
        write_kernelspecs(Path(folder))
        server = Server(
            ServerContext(
                AIStack(providers="auto").build_broker, logging.getLogger(__name__)
            )
        )

        def contender(name: str) -> Callable[[], float]:
            return lambda: asyncio.run(start_once(name, server))

        result = interleaved({name: contender(name) for name in SPECS}, rounds)
        server.web_app.settings["aistack"].close()
    ratios = {
        "vs_local_provisioner": paired_ratio(result["plain"], result["local"]),
        "slice_vs_local_provisioner": paired_ratio(result["slice"], result["local"]),
    }
    figures = {f"{name}_ms": statistics.median(result[name]) for name in SPECS}
    return Report(ratios=ratios, figures=figures, goals=dict.fromkeys(ratios, 1.05))


if __name__ == "__main__":
    main("kernel_start", measure, rounds=10)
