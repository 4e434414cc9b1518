"""Values the provider tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.spec import parse_spec

from .mps_stand import Stand


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


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A host with a stub of MPS, in a folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        host = Stand(tmp_path, Path(folder) / "mps")
        for name, value in host.environment.items():
            monkeypatch.setenv(name, value)
        yield host
        host.close()
