"""What the driver takes of a GPU's memory for each process, which is its context, and
what follows from it.

A context is measured on the host, per driver and model, where kernels may be suspended.
What stands in where it was not is here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .device import Device
from .units import MIB

CONTEXT_BYTES = 512 * MIB
"""A context and the libraries that are loaded into it, where that was not measured.

A bare context with torch 2.10 and CUDA 13 is 426 MiB on an RTX 6000 Ada
(unslothai/unsloth-zoo PR 1053), before cuBLAS and what is loaded lazily; it grows with
the number of multiprocessors.
"""
WORKSPACE_BYTES = 512 * MIB
"""The least to work in beside a context. Below both together CUDA finds the device
"busy or unavailable" (NVIDIA/k8s-device-plugin#1118).
"""
SLACK_BYTES = CONTEXT_BYTES
SLACK_SHARE = 0.05
"""How far above its slice a lease is warned and left alone: the smaller of the two. A
context lies outside any framework's pool and is not always the same size; work is not
cut off for that.
"""


def headroom_bytes(slice_bytes: int, context_bytes: int | None) -> int:
    """What of a slice no framework's pool may take: a context, a quarter at most.

    Args:
        slice_bytes: the slice's memory.
        context_bytes: what a context takes on its device; None where that was not
            measured.
    """
    context = CONTEXT_BYTES if context_bytes is None else context_bytes
    return min(context, slice_bytes // 4)


def least_share_bytes(context_bytes: int | None) -> int:
    """The least memory with which a share of a GPU is of use."""
    context = CONTEXT_BYTES if context_bytes is None else context_bytes
    return context + WORKSPACE_BYTES


def with_contexts(
    devices: Iterable[Device], sizes: Mapping[str, int]
) -> tuple[Device, ...]:
    """Devices with what a context takes on them, by id where that was measured."""
    return tuple(_with_context(device, sizes.get(device.id)) for device in devices)


def _with_context(device: Device, size: int | None) -> Device:
    if size is None:
        return device
    least = least_share_bytes(size) if device.least_share_bytes else 0
    return replace(device, context_bytes=size, least_share_bytes=least)
