"""What stands in for a driver in a rehearsal of the section ``product``: a helper over
states in a file, a CUDA library that computes nothing, and a line of the fake NVML.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.gpu.bench import Bench
from tests.paths import FAKES


def fake_helper(folder: Path) -> tuple[str, ...]:
    """The command of the helper of the tests; every process is running at first."""
    states = folder / "states.json"
    if not states.exists():
        states.write_text("{}")
    program = FAKES / "fake_checkpoint.py"
    return (sys.executable, str(program), str(states), "{}", "running")


@contextmanager
def rehearsed_driver(bench: Bench) -> Iterator[None]:
    """Let what is started find a CUDA library; nothing of it where there is a GPU."""
    if bench.device == "cuda":
        yield
        return
    from tests.fakes.libraries import compiled

    source = FAKES / "cuda" / "fake_cuda.c"
    folder = compiled(source, "libcuda.so.1", "-fvisibility=default")
    before = os.environ["LD_LIBRARY_PATH"]
    os.environ["LD_LIBRARY_PATH"] = f"{before}{os.pathsep}{folder}"
    try:
        yield
    finally:
        os.environ["LD_LIBRARY_PATH"] = before


@contextmanager
def seen_by_nvml(bench: Bench, pid: int, size: int) -> Iterator[None]:
    """Have the fake NVML list a process that holds so much; a real one does by itself."""
    if bench.device == "cuda":
        yield
        return
    from tests.fakes.child import write_state

    file = Path(os.environ["FAKE_NVML_STATE"])
    before = file.read_text()
    write_state(file, f"{before}process gpu=0 pid={pid} memory={size} type=C\n")
    try:
        yield
    finally:
        write_state(file, before)
