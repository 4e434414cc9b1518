from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.client import client


@pytest.fixture
def simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[client.Client]:
    """A client on a ledger of its own with one simulated GPU."""
    monkeypatch.delenv("AISTACK_SOCKET", raising=False)
    monkeypatch.delenv("AISTACK_KERNEL", raising=False)
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(client, "_connected", None)
    result = client.connect()
    yield result
    result.close()
