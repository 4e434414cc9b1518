"""Requests, and leases that a ledger has granted."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Grant, Plan
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.ledger.base import Ledger


def wished(
    request_id: str,
    at: float = 0.0,
    host: str = "box",
    spec: str = "1/2",
    **fields: Any,
) -> Request:
    holder = Holder(
        kind=HolderKind.KERNEL,
        id=f"k-{request_id}",
        user="ann",
        host=host,
        pid=42,
        label="work/tour.ipynb",
    )
    return Request(
        id=request_id, spec=parse_spec(spec), holder=holder, submitted_at=at, **fields
    )


def granted(
    ledger: Ledger, request: Request, now: float = 0.0, *, ends_at: float | None = None
) -> Lease:
    share = Slice(
        device_id="GPU-1",
        kind=SliceKind.SHARE,
        fraction=Fraction(1, 2),
        memory_bytes=10 << 30,
        uuid="GPU-1",
        cores=(0, 2),
    )
    ledger.submit(request)
    state = ledger.read(request.holder.host, now)
    grant = Grant(
        request=request, slices=(share,), expires_at=now + 60.0, ends_at=ends_at
    )
    event = ledger.apply(Plan(version=state.version, actions=(grant,)), now)[-1]
    return ledger.lease(event.lease_id, now)


@pytest.fixture
def wish() -> Callable[..., Request]:
    """Builds a request: ``wish(id, at=0.0, host="box", spec="1/2", **fields)``."""
    return wished


@pytest.fixture
def grant() -> Callable[..., Lease]:
    """Submits and grants a request: ``grant(ledger, request, now=0.0, ends_at=None)``.
    The lease lives for 60 s.
    """
    return granted
