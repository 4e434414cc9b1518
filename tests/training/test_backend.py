from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.core.device import Slice, SliceKind
from jupyter_aistack.training import choose_backend


def a_slice(kind: SliceKind, device: str) -> Slice:
    return Slice(device_id=device, kind=kind, fraction=Fraction(1), memory_bytes=1, uuid=device)


@pytest.mark.parametrize(
    ("slices", "backend", "why"),
    [
        ([[a_slice(SliceKind.GPU, "a")], [a_slice(SliceKind.GPU, "b")]], "nccl", "every rank has whole GPUs"),
        ([[a_slice(SliceKind.GPU, "a")], [a_slice(SliceKind.GPU, "a")]], "gloo", "ranks share a GPU"),
        ([[a_slice(SliceKind.SHARE, "a")], [a_slice(SliceKind.SHARE, "a")]], "gloo", "parts of GPUs"),
        ([[a_slice(SliceKind.MIG, "a")], [a_slice(SliceKind.MIG, "b")]], "gloo", "parts of GPUs"),
        ([[a_slice(SliceKind.CPU, "c")]], "gloo", "of a CPU"),
        ([[a_slice(SliceKind.GPU, "a")], []], "gloo", "no slice is known"),
        ([], "gloo", "no slice is known"),
    ],
)
def test_nccl_only_where_every_rank_has_a_whole_gpu(slices: list[list[Slice]], backend: str, why: str) -> None:
    name, reason = choose_backend(slices)
    assert name == backend
    assert why in reason
