"""What the tenants of the GPU suite do: ``python -m tests.benchmarks.gpu.work cuda``,
one process each.

Reads one JSON object per line and answers with one; ``{"do": "run", "what": "train",
"seconds": 3}``. A failure is an answer with ``error``. Frameworks are imported when
they are first needed, and the caps of a lease are put on them as in a kernel. Ends when
its input does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

JSON = dict[str, Any]
MIB = 1 << 20
PIECE = 1 << 30
CHUNKS = (256 * MIB, 32 * MIB, 4 * MIB)
AT_ONCE = 20
"""Steps between two looks at the clock: a device that is waited for after each one
idles in between.
"""


class Work:
    """One tenant."""

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small = device, small
        self.steps: dict[str, Callable[[], None]] = {}
        self.held: Any = None
        self.done, self.is_burning = 0, False
        self.burning: threading.Thread | None = None

    def start(self) -> JSON:
        """Seconds of the import of torch, and of its first step on the device."""
        begin = time.perf_counter()
        _torch()
        imported = time.perf_counter()
        self._step("matmul")
        return {
            "torch_import_seconds": imported - begin,
            "first_step_seconds": time.perf_counter() - imported,
        }

    # -- throughput --------------------------------------------------------------------

    def run(self, what: str, seconds: float) -> JSON:
        """Steps done in so many seconds, after a warm-up that does not count."""
        step = self._step(what)
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            for _ in range(AT_ONCE):
                step()
            self._wait()
            done += AT_ONCE
        return {"done": done, "seconds": time.perf_counter() - begin}

    def burn(self, what: str) -> JSON:
        """Do steps until `rest`, beside answering."""
        step = self._step(what)
        self.is_burning = True

        def forever() -> None:
            while self.is_burning:
                for _ in range(AT_ONCE):
                    step()
                self._wait()
                self.done += AT_ONCE

        self.burning = threading.Thread(target=forever, daemon=True)
        self.burning.start()
        return {}

    def count(self) -> JSON:
        """Steps done by `burn` so far."""
        return {"done": self.done}

    def rest(self) -> JSON:
        """End what `burn` began."""
        self.is_burning = False
        if self.burning is not None:
            self.burning.join()
        return {"done": self.done}

    def _step(self, what: str) -> Callable[[], None]:
        if what not in self.steps:
            self.steps[what] = {"matmul": self._matmul, "train": self._train}[what]()
            for _ in range(3):
                self.steps[what]()
            self._wait()
        return self.steps[what]

    def _matmul(self) -> Callable[[], None]:
        """A product that fills a GPU: 137 GFLOP."""
        torch = _torch()
        width = 32 if self.small else 4096
        entry, other = (
            torch.randn(width, width, device=self.device, dtype=torch.bfloat16)
            for _ in range(2)
        )
        target = torch.empty_like(entry)

        def step() -> None:
            torch.matmul(entry, other, out=target)

        return step

    def _train(self) -> Callable[[], None]:
        """A training step of the size of a notebook's: it leaves much of a GPU idle."""
        torch = _torch()
        width, batch = (16, 4) if self.small else (1024, 256)
        layers = [
            part
            for _ in range(4)
            for part in (torch.nn.Linear(width, width), torch.nn.ReLU())
        ]
        model = torch.nn.Sequential(*layers).to(self.device)
        optimizer = torch.optim.AdamW(model.parameters())
        data = torch.randn(batch, width, device=self.device)

        def step() -> None:
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()

        return step

    def _wait(self) -> None:
        if self.device == "cuda":
            _torch().cuda.synchronize()

    # -- memory ------------------------------------------------------------------------

    def fill(self, how: str, most: int) -> JSON:
        """Bytes that can be allocated, at most so many; all are let go at once."""
        ways: dict[str, Callable[[int], Any]] = {
            "torch": self._take_by_torch,
            "driver": _driver_takes,
            "memory": bytearray,
        }
        take = ways[how]
        taken: list[Any] = []
        total = 0
        for chunk in CHUNKS:
            while total + chunk <= most:
                slice_ = take(chunk)
                if slice_ is None:
                    break
                taken.append(slice_)
                total += chunk
        if how == "driver":
            for pointer in taken:
                _cuda().cuMemFree_v2(pointer)
        return {"bytes": total}

    def _take_by_torch(self, size: int) -> Any:
        torch = _torch()
        try:
            return torch.empty(size, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError:
            return None

    def probe(self, too_much: int) -> JSON:
        """What the driver says of memory here, and whether it gives more than it
        should. Starts nothing but CUDA.
        """
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _check(
            "cuMemGetInfo",
            _cuda().cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
        )
        pointer = _driver_takes(too_much)
        if pointer is not None:
            _cuda().cuMemFree_v2(pointer)
        return {
            "free": free.value,
            "total": total.value,
            "gave_too_much": pointer is not None,
        }

    # -- what must survive -------------------------------------------------------------

    def hold(self, framework: str, size: int) -> JSON:
        """Keep so many bytes of a pattern on the device."""
        self.held = {
            "torch": self._torch_holds,
            "cupy": _cupy_holds,
            "jax": _jax_holds,
        }[framework](size)
        return {"bytes": size}

    def check(self) -> JSON:
        """Whether the pattern is as it was, and the device still computes."""
        return {"right": bool(self.held())}

    def _torch_holds(self, size: int) -> Callable[[], bool]:
        torch = _torch()
        counts = [PIECE // 4] * (size // PIECE) + [size % PIECE // 4]
        data = [
            torch.arange(count, dtype=torch.int32, device=self.device)
            for count in counts
        ]

        def is_right() -> bool:
            right = all(
                int((each % 251).sum(dtype=torch.int64)) == pattern_sum(len(each))
                for each in data
            )
            if self.device == "cuda":
                torch.cuda.empty_cache()  # what was only needed to look must not be moved as if it were state
            return right

        return is_right

    def offload(self, size: int, cycles: int) -> JSON:
        """Registered tensors out to host memory and back so often: seconds of each way,
        and whether all is right.
        """
        import jupyter_aistack as aistack

        torch = _torch()
        pieces = max(1, min(16, size // (64 * MIB)))
        data = [
            torch.arange(size // pieces // 4, dtype=torch.int32, device=self.device)
            for _ in range(pieces)
        ]
        with aistack.offloadable(data, device=self.device) as registered:
            moves = [
                (registered.suspend().seconds, registered.resume().seconds)
                for _ in range(cycles)
            ]
        expected = pattern_sum(size // pieces // 4)
        right = all(
            int((each % 251).sum(dtype=torch.int64)) == expected for each in data
        )
        return {
            "out": [out for out, _ in moves],
            "back": [back for _, back in moves],
            "right": right,
        }


def _torch() -> Any:
    import torch

    return torch


def pattern_sum(count: int) -> int:
    """The sum of the first so many numbers modulo 251."""
    rounds, rest = divmod(count, 251)
    return rounds * 251 * 125 + rest * (rest - 1) // 2


def _cupy_holds(size: int) -> Callable[[], bool]:
    import cupy

    data = cupy.arange(size // 4, dtype=cupy.int32)
    expected = pattern_sum(size // 4)
    return lambda: int((data % 251).sum(dtype=cupy.int64)) == expected


def _jax_holds(size: int) -> Callable[[], bool]:
    import jax
    import jax.numpy as jnp

    data = jax.device_put(jnp.arange(size // 4, dtype=jnp.int32), jax.devices("gpu")[0])
    rows = data[: data.size // 1024 * 1024].reshape(
        -1, 1024
    )  # sums of rows fit into 32 bits
    expected = pattern_sum(rows.size)
    return lambda: (
        sum(int(part) for part in jax.device_get((rows % 251).sum(axis=1))) == expected
    )


# -- the driver, without any framework -------------------------------------------------

_driver: list[Any] = []


def _cuda() -> Any:
    """The driver with a context on the first device that is visible."""
    if not _driver:
        cuda = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        _check("cuInit", cuda.cuInit(0))
        _check(
            "cuDevicePrimaryCtxRetain",
            cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        )
        _check("cuCtxSetCurrent", cuda.cuCtxSetCurrent(context))
        _driver.append(cuda)
    return _driver[0]


def _driver_takes(size: int) -> ctypes.c_void_p | None:
    """So much device memory from the driver; None when it gives none."""
    pointer = ctypes.c_void_p()
    code = _cuda().cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size))
    return pointer if code == 0 else None


def _check(call: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{call} answered {code}")


# -- being told ------------------------------------------------------------------------


def answer(work: Work, line: str) -> JSON:
    """The answer to one line; never raises."""
    try:
        told = json.loads(line)
        result: JSON = getattr(work, told.pop("do"))(**told)
    except Exception as error:
        return {
            "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        }
    return result


def main() -> None:
    """Say that we are here, then do as told."""
    if "AISTACK_MEMORY_FRACTION" in os.environ:
        from jupyter_aistack.client.runtime.memory_caps import cap_memory

        cap_memory(os.environ)
    work = Work(sys.argv[1], "small" in sys.argv[2:])
    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(work, line)), flush=True)
    work.rest()  # a thread at work on the device would not survive the end of Python


if __name__ == "__main__":
    main()
