"""The fixture of a host with a stub of MPS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.mps.host import Stand


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A host with a stub of MPS, in a folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        host = Stand(tmp_path, Path(folder) / "mps")
        for name, value in host.environment.items():
            monkeypatch.setenv(name, value)
        yield host
        host.close()
