"""Registered objects out to host memory and back, beside plain copies of as many bytes.

The model and the optimizer are real torch objects; without a GPU their device is the
CPU, whose memory is really freed on the way out and allocated anew on the way back. A
plain copy is one ``copy_`` of one tensor into another that was touched before, and on a
GPU pinned.

``ratios.vs_memcpy`` is the time of a whole cycle (out and in, with the search for
views, and with the freeing and allocating) over that of two plain copies; 1 would be as
fast as memory goes. ``ratios.vs_fresh_memcpy`` is the same over two plain copies
between which the one tensor is let go and made anew, as memory that is given back must
be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from jupyter_aistack.client.offload.offload import offloadable
from jupyter_aistack.client.offload.tensor_state import TransferResult
from tests.benchmarks.harness import Report, interleaved, main, paired_ratio

WIDTH, LAYERS = 2048, 16
"""64 Mi parameters: with gradients and two moments, 1 GiB."""


def model_and_optimizer(device: str) -> tuple[Any, Any]:
    import torch

    model = torch.nn.Sequential(
        *(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, WIDTH, device=device)).sum().backward()
    optimizer.step()
    return model, optimizer


def plain_copies(size_bytes: int, device: str) -> Callable[[], float]:
    """Copies so many bytes out and in again; the seconds that took."""
    import torch

    there = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    here = torch.ones(size_bytes, dtype=torch.uint8, pin_memory=device == "cuda")

    def copy() -> float:
        begin = time.perf_counter()
        here.copy_(there)
        there.copy_(here)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return copy


def fresh_copies(size_bytes: int, device: str) -> Callable[[], float]:
    """Copies so many bytes out, gives their memory back, takes as much anew and copies
    in again; the seconds of it.
    """
    import torch

    there = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    here = torch.ones(size_bytes, dtype=torch.uint8, pin_memory=device == "cuda")

    def copy() -> float:
        nonlocal there
        begin = time.perf_counter()
        here.copy_(there)
        there = torch.empty(0)
        if device == "cuda":
            torch.cuda.empty_cache()
        there = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        there.copy_(here)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return copy


def measure(rounds: int) -> Report:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    moves: list[tuple[TransferResult, TransferResult]] = []
    with offloadable(*model_and_optimizer(device), device=device) as offload:
        size = offload.suspend().size_bytes
        offload.resume()

        def cycle() -> float:
            moves.append((offload.suspend(), offload.resume()))
            return moves[-1][0].seconds + moves[-1][1].seconds

        contenders = {
            "memcpy": plain_copies(size, device),
            "fresh_memcpy": fresh_copies(size, device),
        }
        result = interleaved({"ours": cycle, **contenders}, rounds)
    figures = {
        "state_gb": size / 1e9,
        "out_gb_per_second": size
        / 1e9
        / statistics.median(out.seconds for out, _ in moves[1:]),
        "in_gb_per_second": size
        / 1e9
        / statistics.median(back.seconds for _, back in moves[1:]),
        **{
            f"{name}_gb_per_second": 2 * size / 1e9 / statistics.median(result[name])
            for name in contenders
        },
    }
    return Report(
        ratios={
            f"vs_{name}": paired_ratio(result["ours"], result[name])
            for name in contenders
        },
        figures=figures,
    )


if __name__ == "__main__":
    main("suspend_offload", measure, rounds=7)
