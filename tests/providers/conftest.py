"""Values the provider tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.spec import parse_spec


@pytest.fixture
def lease() -> Callable[..., Lease]:
    """Makes leases: ``lease(slice, ..., spec="1/2", id="l-1")``."""

    def make(*slices: Slice, spec: str = "1/2", id: str = "l-1") -> Lease:  # noqa: A002 - the field's own name
        holder = Holder(
            kind=HolderKind.PROCESS, id="pid-1", user="ann", host="box", pid=1
        )
        return Lease(
            id=id,
            token=1,
            request_id="r-1",
            spec=parse_spec(spec),
            holder=holder,
            slices=slices,
            granted_at=0.0,
            expires_at=60.0,
        )

    return make
