from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.compute.training.backend import choose_backend
from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.exceptions import InvalidRequest


def a_slice(kind: SliceKind, device: str) -> Slice:
    return Slice(
        device_id=device, kind=kind, fraction=Fraction(1), memory_bytes=1, uuid=device
    )


@pytest.mark.parametrize(
    ("slices", "backend", "why"),
    [
        (
            [[a_slice(SliceKind.GPU, "a")], [a_slice(SliceKind.GPU, "b")]],
            "nccl",
            "every rank has whole GPUs",
        ),
        (
            [[a_slice(SliceKind.GPU, "a")], [a_slice(SliceKind.GPU, "a")]],
            "gloo",
            "ranks share a GPU",
        ),
        (
            [[a_slice(SliceKind.SHARE, "a")], [a_slice(SliceKind.SHARE, "a")]],
            "gloo",
            "parts of GPUs",
        ),
        (
            [[a_slice(SliceKind.MIG, "a")], [a_slice(SliceKind.MIG, "b")]],
            "gloo",
            "parts of GPUs",
        ),
        ([[a_slice(SliceKind.CPU, "c")]], "gloo", "of a CPU"),
        ([[a_slice(SliceKind.GPU, "a")], []], "gloo", "no slice is known"),
        ([], "gloo", "no slice is known"),
    ],
)
def test_nccl_only_where_every_rank_has_a_whole_gpu(
    slices: list[list[Slice]], backend: str, why: str
) -> None:
    name, reason = choose_backend(slices)
    assert name == backend
    assert why in reason


def on(kind: SliceKind, *devices: str) -> list[list[Slice]]:
    return [[a_slice(kind, device)] for device in devices]


@pytest.mark.parametrize(
    ("slices", "why"),
    [
        (on(SliceKind.MIG, "a", "a"), "parts of GPUs"),
        (on(SliceKind.MIG, "a", "b"), "parts of GPUs"),
        (on(SliceKind.SHARE, "a", "b"), "parts of GPUs"),
        (on(SliceKind.GPU, "a", "a"), "ranks share a GPU"),
    ],
)
def test_nccl_that_cannot_be_had_is_refused_with_the_ways_out(
    slices: list[list[Slice]], why: str
) -> None:
    with pytest.raises(
        InvalidRequest,
        match=f"nccl cannot be used here: .*{why}.*leave it to gloo, or ask for whole",
    ):
        choose_backend(slices, "nccl")


def test_a_backend_may_be_insisted_on() -> None:
    assert choose_backend(on(SliceKind.GPU, "a", "b"), "nccl")[0] == "nccl"
    assert choose_backend(on(SliceKind.GPU, "a", "b"), "gloo") == (
        "gloo",
        "it was requested",
    )
    with pytest.raises(InvalidRequest, match="'mpi' is not one of auto, nccl, gloo"):
        choose_backend([], "mpi")
