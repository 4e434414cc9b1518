"""What would else count in the first section: torch from a cold disk, the first start
of CUDA, and memory of the host that is there only once it was used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.system.memory import available_bytes
from tests.benchmarks.gpu.bench import Bench, Row, WorkFailed, environment
from tests.benchmarks.gpu.workers import worker

SECONDS = 35.0
TOUCHED_GIB = 60


def rows(bench: Bench) -> Iterator[Row]:
    yield Row(name="host_available_gib", value=available_bytes() / GIB)
    yield from grown(bench)
    for start in ("cold", "warm"):
        try:
            with worker(bench, environment()) as child:
                text = child.ask("start")
        except WorkFailed as error:
            yield Row(name=f"{start}.torch_import_seconds", says=f"failed: {error}")
            return
        for name in ("torch_import_seconds", "first_step_seconds"):
            yield Row(name=f"{start}.{name}", value=float(text[name]))


def grown(bench: Bench) -> Iterator[Row]:
    """The host's memory after some of it was touched."""
    most = bench.pick(TOUCHED_GIB, 1)
    command = [sys.executable, "-m", "tests.benchmarks.gpu.host_memory", str(most)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, timeout=bench.left, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    yield touched_row(lines, done.returncode)


def touched_row(lines: list[Mapping[str, Any]], status: int) -> Row:
    """What is available after the touching, and how that ended."""
    name = "host_available_gib_once_touched"
    if not lines:
        return Row(name=name, says=f"failed: its process ended with {status}")
    last = lines[-1]
    says = f"{last['touched_gib']} GiB were touched"
    if last.get("stopped"):
        says += f", no more because {last['stopped']}"
    if status:
        says += f"; its process ended with {status}"
    return Row(name=name, value=float(last["available_gib"]), says=says)
