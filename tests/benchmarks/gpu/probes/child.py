"""What the processes of a probe do: ``python -m tests.benchmarks.gpu.probes.child MODE
[WORD ...]``.

One line of JSON once it is ready, and one for each line that it reads.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from jupyter_aistack.core.model.units import MIB
from tests.benchmarks.gpu.probes.cuda import Cuda
from tests.benchmarks.gpu.probes.holding import HOLDERS
from tests.benchmarks.gpu.probes.reporting import resident_gib

WIDTH, AT_ONCE = 4096, 20
PINNED_BYTES = 1_210_318_848
"""Not a power of two: how it is rounded is to be seen."""


def say(**what: Any) -> None:
    """Answer."""
    print(json.dumps(what), flush=True)


def context() -> None:
    """A bare context: no framework."""
    cuda = Cuda()
    started = cuda.context()
    say(**started, **({} if started["error"] else cuda.memory()))
    for line in sys.stdin:
        word, *sizes = line.split()
        say(**(cuda.fill(*map(int, sizes)) if word == "fill" else cuda.memory()))


def initialised() -> None:
    """``cuInit`` and no context."""
    say(**Cuda().initialise())
    sys.stdin.read()


def first_line(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


class Burning:
    """torch at work until it ends."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.done = 0
        self.errors: list[str] = []
        options: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        self._factor = torch.randn(WIDTH, WIDTH, **options)
        self._product = torch.empty_like(self._factor)
        torch.cuda.synchronize()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            while True:
                for _ in range(AT_ONCE):
                    self._torch.matmul(self._factor, self._factor, out=self._product)
                self._torch.cuda.synchronize()
                self.done += AT_ONCE
        except Exception as error:
            self.errors.append(first_line(error))

    def fail(self) -> None:
        """An index out of bounds: an assertion on the device."""
        try:
            target = self._torch.zeros(4, device="cuda")
            target[self._torch.tensor([1 << 20], device="cuda")] = 1
            self._torch.cuda.synchronize()
        except Exception as error:
            self.errors.append(first_line(error))


def burning() -> None:
    """Products of matrices, counted."""
    work = Burning()
    say(ready=1)
    for line in sys.stdin:
        if line.startswith("assert"):
            work.fail()
        say(done=work.done, error=(work.errors or [""])[-1])
    os._exit(0)  # its thread would not survive the end of Python


def holding(framework: str, size: str) -> None:
    """Data of a framework that is looked at when asked."""
    is_right = HOLDERS[framework](int(size))
    say(ready=1, pid=os.getpid())
    for _ in sys.stdin:
        try:
            say(right=bool(is_right()))
        except Exception as error:
            say(error=first_line(error))
    os._exit(0)


def pinned() -> None:
    """Pinned memory of torch: how it is rounded, and whether it is given back."""
    import torch

    cuda: Any = torch.cuda
    cuda.init()
    before, begin = _pinned_bytes(torch), time.perf_counter()
    block = torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
    seconds, after = time.perf_counter() - begin, _pinned_bytes(torch)
    held = resident_gib(os.getpid())
    del block
    gc.collect()
    dropped = resident_gib(os.getpid())
    with contextlib.suppress(AttributeError):
        torch._C._host_emptyCache()
    say(
        asked_mib=PINNED_BYTES // MIB,
        block_mib=(after - before) // MIB,
        alloc_s=round(seconds, 2),
        resident_gib=held,
        once_dropped_gib=dropped,
        once_cache_emptied_gib=resident_gib(os.getpid()),
    )


def _pinned_bytes(torch: Any) -> int:
    tell = getattr(torch.cuda, "host_memory_stats", None)
    statistics = {} if tell is None else tell()
    return int(statistics.get("allocated_bytes.current", 0))


MODES: dict[str, Callable[..., None]] = {
    "context": context,
    "initialised": initialised,
    "burning": burning,
    "holding": holding,
    "pinned": pinned,
}

if __name__ == "__main__":
    MODES[sys.argv[1]](*sys.argv[2:])
