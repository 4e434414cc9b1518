"""Which torch backend may carry a group of ranks."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.exceptions import InvalidRequest

BACKENDS = ("auto", "nccl", "gloo")


def choose_backend(
    slices: Sequence[Sequence[Slice]], requested: str = "auto"
) -> tuple[str, str]:
    """The backend for ranks on these slices, one entry per rank, and why.

    NCCL refuses two ranks on one physical GPU ("Duplicate GPU detected"), and MIG
    instances are parts of one GPU, without NVLink or CUDA IPC between them (NVIDIA MIG
    user guide).

    Args:
        slices: of each rank.
        requested: ``nccl`` or ``gloo`` to insist on it, ``auto`` for the fastest that
            these slices carry.

    Raises:
        InvalidRequest: NCCL is insisted on and these slices cannot carry it.
    """
    if requested not in BACKENDS:
        raise InvalidRequest(
            f"backend: {requested!r} is not one of {', '.join(BACKENDS)}",
            field="backend",
        )
    if requested == "gloo":
        return "gloo", "it was requested"
    backend, why = _fastest(slices)
    if requested == "nccl" and backend != "nccl":
        raise InvalidRequest(
            f"backend: nccl cannot be used here: {why}; leave it to gloo, or ask for whole GPUs: a cluster of slice 1",
            field="backend",
        )
    return backend, why


def _fastest(slices: Sequence[Sequence[Slice]]) -> tuple[str, str]:
    if not slices or not all(slices):
        return "gloo", "no slice is known for every rank"
    held = [slice_ for own in slices for slice_ in own]
    if any(slice_.kind is SliceKind.CPU for slice_ in held):
        return "gloo", "the slices are of a CPU"
    if any(slice_.kind is not SliceKind.GPU for slice_ in held):
        return "gloo", "the slices are parts of GPUs, and NCCL needs whole ones"
    devices = {slice_.device_id for slice_ in held}
    if len(devices) < len(held):
        return "gloo", "ranks share a GPU, and NCCL needs a GPU for every rank"
    return "nccl", "every rank has whole GPUs of its own"
