"""Rows that earlier versions wrote are read as they were meant."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.ledger.sql.codec import lease_from_row, lease_to_row
from jupyter_aistack.testing import holder

PIECE = Slice(
    device_id="GPU-a",
    kind=SliceKind.MIG,
    fraction=Fraction(1, 8),
    memory_bytes=1 << 34,
    uuid="MIG-a",
    profile="1c.2g.35gb",
    gpu_slices=2,
    compute_slices=1,
)
LEASE = Lease(
    id="l-1",
    token=1,
    request_id="r-1",
    spec=parse_spec("1c.2g.35gb"),
    holder=holder(),
    slices=(PIECE,),
    granted_at=0.0,
    expires_at=60.0,
)


def test_slice_counts_of_an_instance_are_kept() -> None:
    assert lease_from_row(lease_to_row(LEASE)) == LEASE


def test_a_slice_without_counts_is_one_whose_counts_are_unknown() -> None:
    row = lease_to_row(LEASE)
    (slice_,) = json.loads(row["slices"])
    del slice_["gpu_slices"], slice_["compute_slices"]
    before = lease_from_row({**row, "slices": json.dumps([slice_])})
    assert before.slices == (replace(PIECE, gpu_slices=0, compute_slices=0),)
