"""Which torch backend may carry a group of ranks."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.exceptions import InvalidRequest

BACKENDS = ("auto", "nccl", "gloo")


def choose_backend(
    slices: Sequence[Sequence[Slice]], wanted: str = "auto"
) -> tuple[str, str]:
    """The backend for ranks on these slices, one entry per rank, and why.

    NCCL refuses two ranks on one physical GPU ("Duplicate GPU detected"), and MIG
    instances are parts of one, without NVLink or CUDA IPC between them (NVIDIA MIG user
    guide).

    Args:
        slices: of each rank.
        wanted: ``nccl`` or ``gloo`` to insist on one, ``auto`` for the fastest that
            these slices carry.

    Raises:
        InvalidRequest: NCCL is insisted on and these slices cannot carry it.
    """
    if wanted not in BACKENDS:
        raise InvalidRequest(
            f"backend: {wanted!r} is not one of {', '.join(BACKENDS)}", field="backend"
        )
    if wanted == "gloo":
        return "gloo", "it was asked for"
    backend, why = _fastest(slices)
    if wanted == "nccl" and backend != "nccl":
        raise InvalidRequest(
            f"backend: nccl cannot be used here: {why}; leave it to gloo, or ask for whole GPUs: a cluster of slice 1",
            field="backend",
        )
    return backend, why


def _fastest(slices: Sequence[Sequence[Slice]]) -> tuple[str, str]:
    if not slices or not all(slices):
        return "gloo", "no slice is known for every rank"
    pieces = [piece for own in slices for piece in own]
    if any(piece.kind is SliceKind.CPU for piece in pieces):
        return "gloo", "the slices are of a CPU"
    if any(piece.kind is not SliceKind.GPU for piece in pieces):
        return (
            "gloo",
            "the slices are parts of GPUs, and NCCL wants a whole GPU for every rank",
        )
    if len({piece.device_id for piece in pieces}) < len(pieces):
        return "gloo", "ranks share a GPU, and NCCL wants one for every rank"
    return "nccl", "every rank has whole GPUs of its own"
